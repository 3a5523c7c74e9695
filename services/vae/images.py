"""Pixels to image files."""

import io

import torch
from PIL import Image

from shared.messages import ImageFormat


def encode_image(pixels: torch.Tensor, output_format: ImageFormat, compression: int) -> bytes:
    """A file of uint8 `pixels` (height, width, 3). `compression`: quality of jpeg and webp."""
    image = Image.fromarray(pixels.numpy())
    file = io.BytesIO()
    if output_format == "png":
        image.save(file, "PNG", compress_level=4)
    else:
        image.save(file, output_format.upper(), quality=compression)
    return file.getvalue()
