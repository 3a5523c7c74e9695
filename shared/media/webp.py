"""WebP files, chunk by chunk (RFC 9649)."""

import itertools
import struct
from typing import Final

from shared.media.stripped import Stripped, counted

RIFF, WEBP = b"RIFF", b"WEBP"
_HEADER: Final = 12


def strip(data: bytes) -> Stripped:
    """libwebp needs nothing taken away: it reads the first image, and no metadata."""
    about: dict[bytes, bytes] = {}
    position = _HEADER
    for number in itertools.count(1):
        if position + 8 > len(data):
            break
        counted(number)
        kind, length = struct.unpack_from("<4sI", data, position)
        position += 8
        about.setdefault(kind, data[position : position + length])
        position += length + length % 2
    return Stripped(
        data, exif=about.get(b"EXIF"), xmp=about.get(b"XMP "), profile=about.get(b"ICCP")
    )
