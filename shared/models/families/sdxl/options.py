"""Options of SDXL's networks; see `shared/models/contracts/options.py`."""

from typing import Final

from shared.models.families.unet.options import controlnet_options, unet_options

TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")
"""Folders of its text encoders, in their order."""
SIZES: Final = 6
"""Scalars that every network takes; see `Sdxl.sizes`."""
ADDITION: Final = "text_time"
"""What its networks add to the time: the pooled prompt and the sizes."""
UNET: Final = unet_options(ADDITION)
CONTROLNET: Final = controlnet_options(ADDITION)
