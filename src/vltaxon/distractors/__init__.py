"""Similar choices: the wrong labels that a dual encoder finds nearest to each image (PROTOCOLS 3.6)."""
