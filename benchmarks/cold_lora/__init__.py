"""An image with a LoRA that nobody had before, against the same image without one."""
