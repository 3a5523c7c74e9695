"""FLUX: a transformer over patches of latents and tokens of the prompt, told by CLIP and T5."""
