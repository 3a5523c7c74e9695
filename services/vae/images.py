"""Pixels to image files."""

import io
from typing import Final, NamedTuple

import torch
from PIL import Image

from shared.media.sizes import MAX_FILE_BYTES
from shared.messages import ImageFormat

LOWER: Final = (95, 85, 70, 50, 30)
"""Qualities for a file that is too large for the bus as it is wanted."""


class Encoded(NamedTuple):
    """A file."""

    data: bytes
    quality: int
    """Of a jpeg or webp; 100 for a png."""


def encode_image(
    pixels: torch.Tensor,
    output_format: ImageFormat,
    compression: int,
    profile: bytes | None = None,
    most: int = MAX_FILE_BYTES,
) -> Encoded:
    """A file of uint8 `pixels` (height, width, 3), whose colours `profile` says; None: sRGB.
    `compression`: quality of jpeg and webp; it is lowered as far as the file has to be, for `most`
    bytes."""
    image, form = Image.fromarray(pixels.numpy()), output_format.upper()
    if output_format == "png":
        return Encoded(_file(image, form, profile, compress_level=4), 100)
    found = Encoded(_file(image, form, profile, quality=compression), compression)
    for quality in LOWER:
        if len(found.data) <= most:
            break
        if quality < compression:
            found = Encoded(_file(image, form, profile, quality=quality), quality)
    return found


def less_quality(index: int, output_format: ImageFormat, wanted: int, found: int) -> str | None:
    """What the answer says of image `index`, whose file had no room as it was `wanted`; None: it
    had."""
    if output_format == "png" or found == wanted:
        return None
    return (
        f"output_compression: image {index} is a {output_format} of quality {found}, for with "
        f"{wanted} it is larger than the {MAX_FILE_BYTES} bytes that the bus has room for"
    )


def _file(image: Image.Image, form: str, profile: bytes | None, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, form, icc_profile=profile, **options)
    return file.getvalue()
