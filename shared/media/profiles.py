"""Colours between an image's own profile (ICC.1) and sRGB."""

from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, ImageCms

SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""By mode: what a profile says of itself, if it fits."""
NEXT_TO_NOTHING: Final = 2
"""Levels; a conversion that changes no colour by more than that is left out."""
MAX_KEPT_BYTES: Final = 32 * 1024
_INTENT: Final = ImageCms.Intent.PERCEPTUAL


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """`image` (L, RGB or CMYK), whose colours `profile` says, in sRGB, as RGB. A profile that is
    damaged or of other pixels counts as none."""
    found = _conversion(profile, image.mode)
    if found is None or _changes_nothing(found, image.mode):
        return image if image.mode == "RGB" else image.convert("RGB")
    return ImageCms.applyTransform(image, found)


def from_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The way back, for RGB. `profile`: one that `is_kept`."""
    found = _conversion(profile, "RGB", back=True)
    if found is None or _changes_nothing(found, "RGB"):
        return image
    return ImageCms.applyTransform(image, found)


def is_kept(profile: bytes) -> bool:
    """Whether a result can have it: it takes little of a message, and colours can be converted to
    RGB of this profile, and back."""
    return len(profile) <= MAX_KEPT_BYTES and all(
        _conversion(profile, "RGB", back) is not None for back in (False, True)
    )


def _conversion(
    profile: bytes | None, mode: str, back: bool = False
) -> ImageCms.ImageCmsTransform | None:
    if not profile:
        return None
    try:
        own, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        if own.profile.xcolor_space.strip() != SPACES[mode]:
            return None
        if back:
            return ImageCms.buildTransform(srgb, own, "RGB", mode, _INTENT)
        return ImageCms.buildTransform(own, srgb, mode, "RGB", _INTENT)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(conversion: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether what it converts from is what it converts to, as with profiles of sRGB."""
    if mode != "RGB":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    found = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), conversion))
    return int(np.abs(found.astype(int) - colours).max()) <= NEXT_TO_NOTHING
