"""Train pocket-sdxl from a seed: autoencoder, then text encoders, then UNet, then export."""
