"""Rows that share steps: the loop, its slots, and the events that leave it."""
