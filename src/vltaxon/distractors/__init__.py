"""Similar choices: the wrong labels that a dual encoder finds nearest to each image."""
