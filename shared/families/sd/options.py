"""Options of Stable Diffusion's networks; see `shared/families/options.py`."""

from typing import Final

from shared.families.unet.options import controlnet_options, unet_options

UNET: Final = unet_options(None)
CONTROLNET: Final = controlnet_options(None)
