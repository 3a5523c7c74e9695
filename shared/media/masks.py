"""What masks say: which pixels are to be drawn anew."""

from typing import Final

from PIL import Image, ImageChops

from shared.errors import InvalidRequest
from shared.media.profiles import to_srgb
from shared.media.reader import DecodedImage

HALF: Final = 128
"""What says at least this much, once it is brought to size, is drawn anew."""
COLOURED: Final = 64
"""Difference of two channels from which a pixel is no grey (JPEG makes small ones),"""
FEW: Final = 0.01
"""and the share of such pixels that a mask may have."""
ALLOWED: Final = (
    "a mask that is fully transparent (alpha 0) where the image is to be edited, or, without any "
    "transparency, white there and black elsewhere"
)


def holes(alpha: Image.Image) -> Image.Image:
    """255 where an alpha channel is 0 (drawn anew); 0 where it is not, however little (kept)."""
    return alpha.point([255, *[0] * 255])


def mask_of(image: DecodedImage) -> Image.Image | None:
    """The mask that an image has in itself, in the form of `read_mask`: its alpha channel, if any
    of it is fully transparent."""
    alpha = image.alpha()
    found = None if alpha is None else holes(alpha)
    return None if found is None or found.getbbox() is None else found


def drawn_anew(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask, in the form of `read_mask`, brought to `size`: 255 where the image is drawn anew, 0
    where it is kept."""
    levels = mask.resize(size, Image.Resampling.LANCZOS)
    return levels.point([0] * HALF + [255] * (256 - HALF))


def read_mask(image: DecodedImage) -> Image.Image:
    """How much each pixel is to be drawn anew, 0 to 255: by its alpha channel, if any of that is
    not opaque, else by its light. Raises `InvalidRequest` if that is nowhere the case."""
    alpha = image.alpha()
    if alpha is not None:
        found = holes(alpha)
        if found.getbbox() is None:
            least = alpha.getextrema()[0]
            raise InvalidRequest("mask", f"a mask whose least alpha is {least}", ALLOWED)
        return found
    light = _light(image)
    if light.getextrema()[1] < HALF:
        raise InvalidRequest("mask", "an opaque mask without anything white", ALLOWED)
    return light


def _light(image: DecodedImage) -> Image.Image:
    """Raises `InvalidRequest` about an image in colours: which of them were meant is unknown."""
    own = image.colours()
    if own.mode == "L" and image.profile is None:
        return own
    shown = to_srgb(own, image.profile)
    red, green, blue = shown.split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    least = ImageChops.darker(ImageChops.darker(red, green), blue)
    coloured = sum(ImageChops.subtract(most, least).histogram()[COLOURED:])
    if coloured > FEW * shown.width * shown.height:
        raise InvalidRequest("mask", "an opaque image in colours", ALLOWED)
    return shown.convert("L")
