"""Trains `pocket-flux`."""
