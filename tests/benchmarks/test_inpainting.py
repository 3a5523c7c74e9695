"""Edits as diffusers' inpaint pipelines draw them, and a random FLUX to measure them with."""
