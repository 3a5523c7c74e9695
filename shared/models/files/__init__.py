"""A model's files: where they are, what their headers say, how their weights are read."""
