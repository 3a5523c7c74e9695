"""Trains `pocket-sdxl`, its LoRAs and its ControlNets."""
