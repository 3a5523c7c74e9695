"""Low-rank adapters (LoRA): their files, their place in a network, and batches that mix them."""
