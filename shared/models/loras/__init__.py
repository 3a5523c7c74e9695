"""LoRAs: what their files say in any dialect, which models they fit, and those that are in
memory."""
