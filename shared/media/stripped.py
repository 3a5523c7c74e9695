"""What an image file is taken apart into before Pillow sees it."""

import zlib
from dataclasses import dataclass
from typing import Final

MAX_METADATA_BYTES: Final = 8 * 1024 * 1024
"""Of one unpacked profile or text; a larger one counts as none."""

MAX_PARTS: Final = 65_536
"""Chunks or segments of a file; an image needs a few, or a few thousand if it is animated."""


@dataclass(frozen=True, slots=True)
class Stripped:
    """A file of pixels alone, and what its file said about them. Metadata that is damaged is None:
    it never decides whether an image can be read."""

    pixels: bytes
    exif: bytes | None = None
    """A TIFF structure, perhaps behind `Exif\\0\\0`."""
    xmp: bytes | None = None
    profile: bytes | None = None
    """An ICC profile."""
    whole: bool = True
    """False: the file has no end, so its last rows may be missing."""


def counted(number: int) -> None:
    """Raises `ValueError` about a file of more than `MAX_PARTS` parts."""
    if number > MAX_PARTS:
        raise ValueError(f"more than {MAX_PARTS} parts")


def inflated(packed: bytes) -> bytes | None:
    """What zlib packed; None if it is damaged or larger than `MAX_METADATA_BYTES`."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(packed, MAX_METADATA_BYTES)
    except zlib.error:
        return None
    return text if stream.eof else None
