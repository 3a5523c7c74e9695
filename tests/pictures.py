"""Pictures to edit, masks for them, and their files."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Box = tuple[int, int, int, int]
"""Left, upper, right, lower; as Pillow has it."""
SIZE = (128, 128)
MIDDLE: Box = (32, 40, 104, 96)


def picture(size: tuple[int, int] = SIZE, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A smooth picture with something in it, so that no two parts of it are the same."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    drawn = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    ImageDraw.Draw(drawn).ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), "red")
    return drawn.convert(mode)


def mask(size: tuple[int, int] = SIZE, shown: Box | None = MIDDLE) -> Image.Image:
    """Fully transparent in the box `shown`; opaque elsewhere."""
    drawn = Image.new("RGBA", size, (0, 0, 0, 255))
    if shown is not None:
        drawn.paste((0, 0, 0, 0), shown)
    return drawn


def file(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
