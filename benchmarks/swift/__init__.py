"""Images with 0 to 3 ControlNets (C) and 0 to 2 LoRAs (L), from diffusers and from a fleet."""
