"""Stable Diffusion XL (arXiv 2307.01952)."""
