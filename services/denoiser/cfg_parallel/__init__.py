"""Classifier-free guidance in parallel: another denoiser computes the unconditional branch."""
