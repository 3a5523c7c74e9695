"""Denoises rows, step by step, in one running batch."""
