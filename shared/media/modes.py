"""Pixels of any mode that Pillow reads, in 8 bits."""

from typing import Any, Final

import numpy as np
from PIL import Image

WHITE: Final = 255
_DEEP: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Greys of 16 bits; `I` is how older versions of Pillow read them."""
_BAND: Final = 256
"""Rows that are converted at a time, to take little memory."""
_OTHERS: Final = {
    "1": "L",
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
}
_OPAQUE: Final = {"L": "LA", "RGB": "RGBA"}


def in_eight_bits(image: Image.Image) -> Image.Image:
    """The same image in mode L, LA, RGB, RGBA or CMYK. A colour that a file declares transparent
    is so in the result. Raises `ValueError` for a mode that has no such look (floats)."""
    if image.mode in _DEEP:
        return _from_deep(image)
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    plain = _OTHERS.get(image.mode, image.mode)
    if "transparency" in image.info and plain in _OPAQUE:
        return image.convert(_OPAQUE[plain])
    if plain not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise ValueError(f"pixels of mode {image.mode}")
    return image if plain == image.mode else image.convert(plain)


def _from_deep(image: Image.Image) -> Image.Image:
    """0 to 65535 becomes 0 to 255, rounded."""
    deep: np.ndarray[Any, Any] = np.asarray(image)
    levels = np.empty(deep.shape, np.uint8)
    for top in range(0, len(deep), _BAND):
        band = deep[top : top + _BAND].clip(0, 65535).astype(np.uint32)
        levels[top : top + _BAND] = (band + 128) // 257
    grey = Image.fromarray(levels)
    if "transparency" not in image.info:
        return grey
    opaque = (deep != image.info["transparency"]).view(np.uint8) * np.uint8(255)
    return Image.merge("LA", (grey, Image.fromarray(opaque)))


def alpha_of(image: Image.Image) -> Image.Image | None:
    """The alpha channel of an image in 8 bits; None if all of it is opaque."""
    if not image.mode.endswith("A"):
        return None
    alpha = image.getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def on_white(image: Image.Image) -> Image.Image:
    """An image in 8 bits without its alpha channel: what is transparent lets white through."""
    if not image.mode.endswith("A"):
        return image
    mode, alpha = image.mode[:-1], alpha_of(image)
    colours = image.convert(mode)
    if alpha is None:
        return colours
    white = Image.new(mode, image.size, (WHITE,) * len(mode) if len(mode) > 1 else WHITE)
    white.paste(colours, mask=alpha)
    return white
