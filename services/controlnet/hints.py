"""Images that users send, as ControlNets want them."""

from functools import cache
from typing import Any

import torch

from shared.media.reader import read_image


def read_hint(data: bytes, width: int, height: int) -> torch.Tensor:
    """The image in `data`, (1, 3, height, width), RGB from 0 to 1; brought to that size as
    `StableDiffusionXLControlNetPipeline` does. Raises `InvalidRequest`."""
    image = read_image("controls", data).shown((width, height))
    prepared: torch.Tensor = _processor().preprocess(image, height=height, width=width)
    return prepared


@cache
def _processor() -> Any:
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
