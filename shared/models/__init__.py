"""What is known of models by their names: the catalogue, and each model's card and settings."""
