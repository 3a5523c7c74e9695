"""Stable Diffusion XL: a UNet with cross attention, told by two CLIP text encoders."""
