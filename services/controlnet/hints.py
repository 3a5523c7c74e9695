"""Pictures that users send, as ControlNets want them."""

from io import BytesIO
from typing import Final

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, UnidentifiedImageError

from shared.errors import InvalidRequest

MAX_PIXELS: Final = 64 * 1024 * 1024
FORMATS: Final = ("PNG", "JPEG", "WEBP")
_PROCESSOR: Final = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)


def read_hint(data: bytes, width: int, height: int) -> torch.Tensor:
    """The picture in `data`, (1, 3, height, width), RGB from 0 to 1; brought to that size as
    `StableDiffusionXLControlNetPipeline` does. Raises `InvalidRequest`."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                found = f"{image.width}x{image.height} pixels"
                raise InvalidRequest("controls", found, f"images of at most {MAX_PIXELS} pixels")
            image.load()
            prepared: torch.Tensor = _PROCESSOR.preprocess(image, height=height, width=width)
    except Image.DecompressionBombError as error:
        raise InvalidRequest("controls", str(error), f"at most {MAX_PIXELS} pixels") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        allowed = "an image that is a whole png, jpeg or webp"
        found = f"{len(data)} bytes that are none"
        raise InvalidRequest("controls", found, allowed) from error
    return prepared
