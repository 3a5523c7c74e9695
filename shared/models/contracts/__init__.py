"""What each component of a model provides, whatever its architecture."""
