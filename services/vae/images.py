"""Pixels to image files."""

import io
import logging
from typing import Final

import torch
from PIL import Image

from shared.jobs.sizes import MAX_FILE_BYTES
from shared.messages import ImageFormat

log = logging.getLogger(__name__)

LOWER: Final = (95, 85, 70, 50, 30)
"""Qualities for a file that is too large for the bus as it is wanted."""


def encode_image(
    pixels: torch.Tensor,
    output_format: ImageFormat,
    compression: int,
    profile: bytes | None = None,
    most: int = MAX_FILE_BYTES,
) -> bytes:
    """A file of uint8 `pixels` (height, width, 3), whose colours `profile` says; None: sRGB.
    `compression`: quality of jpeg and webp; it is lowered as far as the file has to be, for `most`
    bytes."""
    image, form = Image.fromarray(pixels.numpy()), output_format.upper()
    if output_format == "png":
        return _file(image, form, profile, compress_level=4)
    data = _file(image, form, profile, quality=compression)
    for quality in LOWER:
        if len(data) <= most:
            break
        if quality < compression:
            log.warning("%d bytes are too many: a %s of less quality", len(data), output_format)
            data = _file(image, form, profile, quality=quality)
    return data


def _file(image: Image.Image, form: str, profile: bytes | None, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, form, icc_profile=profile, **options)
    return file.getvalue()
