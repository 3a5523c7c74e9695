"""A sampler as a table of numbers, and the noise and latents that rows begin with."""
