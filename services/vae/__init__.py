"""Turns latents into finished images."""
