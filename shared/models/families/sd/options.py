"""Options of Stable Diffusion's networks; see `shared/models/contracts/options.py`."""

from typing import Final

from shared.models.families.unet.options import controlnet_options, unet_options

UNET: Final = unet_options(None)
CONTROLNET: Final = controlnet_options(None)
