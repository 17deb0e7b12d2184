"""Training: from tables and a base model to an adapter with its curve and record."""
