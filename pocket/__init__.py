"""Small models that we train ourselves, and the world of coloured shapes that they paint."""
