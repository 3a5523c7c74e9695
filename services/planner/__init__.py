"""Validates submitted jobs, decides admission, and publishes their first nodes."""
