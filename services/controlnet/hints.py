"""Pictures that users send, as ControlNets want them."""

from typing import Final

import torch
from diffusers.image_processor import VaeImageProcessor

from shared.pictures.reader import read_picture

_PROCESSOR: Final = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)


def read_hint(data: bytes, width: int, height: int) -> torch.Tensor:
    """The picture in `data`, (1, 3, height, width), RGB from 0 to 1; brought to that size as
    `StableDiffusionXLControlNetPipeline` does. Raises `InvalidRequest`."""
    image = read_picture("controls", data).shown((width, height))
    prepared: torch.Tensor = _PROCESSOR.preprocess(image, height=height, width=width)
    return prepared
