"""Pictures that users send, as ControlNets want them."""

from typing import Final

import torch
from diffusers.image_processor import VaeImageProcessor

from shared.pictures import open_picture

MAX_PIXELS: Final = 64 * 1024 * 1024
_PROCESSOR: Final = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)


def read_hint(data: bytes, width: int, height: int) -> torch.Tensor:
    """The picture in `data`, (1, 3, height, width), RGB from 0 to 1; brought to that size as
    `StableDiffusionXLControlNetPipeline` does. Raises `InvalidRequest`."""
    image = open_picture("controls", data, MAX_PIXELS)
    prepared: torch.Tensor = _PROCESSOR.preprocess(image, height=height, width=width)
    return prepared
