"""What the families have in common whose network is diffusers' `UNet2DConditionModel`."""
