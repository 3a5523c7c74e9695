"""JPEG files, segment by segment (ITU-T T.81, annex B)."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from PIL import Image, ImageChops

from shared.media.stripped import Stripped, counted

START: Final = b"\xff\xd8\xff"
_END: Final = b"\xff\xd9"
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_RESTARTS: Final = range(0xD0, 0xD8)
_APPS: Final = range(0xE0, 0xF0)
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_DATA: Final = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""A marker that ends a scan."""
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_PROGRESSIVE: Final = b"\xff\xc2"
_INTERVAL: Final = b"\xff\xdd"
MAX_SCANS: Final = 64
"""Each may take as long as the whole image; progressive encoders write about ten."""
_JUNK: Final = bytes(range(254, 0, -1)) * 2
"""Data that begins after the end of a scan, and is seen if anything is missing before: where
libjpeg finds no data it takes zeros."""
_ARITHMETIC: Final = (b"\xff\xc9", b"\xff\xca")
"""Such data may end before its last zeros, and is whole."""
_BAND: Final = 256
"""Rows that are compared at a time, to take little memory."""


@dataclass(slots=True)
class _Parts:
    kept: list[bytes] = field(default_factory=lambda: [b"\xff\xd8"])
    exif: bytes | None = None
    xmp: bytes | None = None
    profile: dict[int, bytes] = field(default_factory=dict)
    """Parts by number."""
    profile_parts: int = 0
    scans: int = 0


def strip(data: bytes) -> Stripped:
    """The first image of a JPEG file, without what follows it (further images, videos)."""
    parts, position, whole = _Parts(), 2, False
    for number in itertools.count(1):
        if (match := _MARKER.search(data, position)) is None:
            break
        counted(number)
        marker, begin = match.group(1)[0], match.end()
        if marker == _EOI:
            whole = True
            break
        if marker == _SOI:  # a thumbnail, out of a segment that is shorter than it says
            position = _behind_thumbnail(data, begin)
        elif marker in _RESTARTS or marker == 0x01:
            position = begin
        else:
            position = _take(data, marker, begin, parts)
    pixels = b"".join([*parts.kept, _END])
    return Stripped(pixels, parts.exif, parts.xmp, _profile(parts), whole)


def _take(data: bytes, marker: int, begin: int, parts: _Parts) -> int:
    """Read the segment whose length is at `begin`; returns where the next one begins."""
    end = begin + int.from_bytes(data[begin : begin + 2], "big")
    content = data[begin + 2 : end]
    if marker in _APPS or marker == _COM:
        if not _leads_on(data, end):
            return _resynchronised(data, begin)
        if _is_about_colours(marker, content):
            parts.kept.append(b"\xff" + bytes([marker]) + data[begin:end])
        _take_metadata(marker, content, parts)
        return end
    if marker == _SOS:
        parts.scans += 1
        if parts.scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        found = _AFTER_DATA.search(data, end)
        end = len(data) if found is None else found.start()
    parts.kept.append(b"\xff" + bytes([marker]) + data[begin:end])
    return max(end, begin)


def _is_about_colours(marker: int, content: bytes) -> bool:
    """Whether a segment says how components are colours."""
    jfif = marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14
    return jfif or (marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12)


def _take_metadata(marker: int, content: bytes, parts: _Parts) -> None:
    if marker == 0xE1 and content.startswith(_EXIF) and parts.exif is None:
        parts.exif = content
    elif marker == 0xE1 and content.startswith(_XMP) and parts.xmp is None:
        parts.xmp = content[len(_XMP) :]
    elif marker == 0xE2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
        number, parts.profile_parts = content[len(_ICC)], content[len(_ICC) + 1]
        parts.profile[number] = content[len(_ICC) + 2 :]


def _profile(parts: _Parts) -> bytes | None:
    """None if a part of it is missing."""
    numbers = range(1, parts.profile_parts + 1)
    if not numbers or set(numbers) != set(parts.profile):
        return None
    return b"".join(parts.profile[number] for number in numbers)


def _leads_on(data: bytes, end: int) -> bool:
    """Whether a segment that ends there may be as long as it says."""
    return data[end : end + 1] == b"\xff" and data[end + 1 : end + 2] not in (b"", b"\x00")


def _resynchronised(data: bytes, position: int) -> int:
    """Behind a segment of metadata that is not as long as it says: where the next one begins that
    is. Thumbnails in it are passed over."""
    for number in itertools.count(1):
        if (match := _MARKER.search(data, position)) is None:
            break
        counted(number)
        marker, begin = match.group(1)[0], match.end()
        if marker == _SOI:
            position = _behind_thumbnail(data, begin)
            continue
        length = int.from_bytes(data[begin : begin + 2], "big")
        if marker >= 0xC0 and length >= 2 and (marker == _SOS or _leads_on(data, begin + length)):
            return match.start()
        position = begin
    return len(data)


def _behind_thumbnail(data: bytes, position: int) -> int:
    end = data.find(_END, position)
    return len(data) if end < 0 else end + len(_END)


def lacks_rows(stripped: Stripped, image: Image.Image) -> bool:
    """Whether the data of `image`, which was decoded from `stripped`, ends before its last row, or
    in it: libjpeg paints what is missing, and Pillow does not say so. With more data behind it a
    whole image stays what it is."""
    head = stripped.pixels[: stripped.pixels.find(b"\xff\xda")]
    if any(kind in head for kind in _ARITHMETIC) or (_PROGRESSIVE in head and not stripped.whole):
        return not stripped.whole
    more = _JUNK
    if _INTERVAL in head:
        more += b"".join(bytes([0xFF, marker]) + _JUNK for marker in _RESTARTS) * 2
    longer = Image.open(BytesIO(stripped.pixels[: -len(_END)] + more + _END), formats=("JPEG",))
    longer.load()
    return any(
        ImageChops.difference(image.crop(band), longer.crop(band)).getbbox() is not None
        for band in _bands(image)
    )


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """From below: what is missing is there."""
    for lower in range(image.height, 0, -_BAND):
        yield 0, max(0, lower - _BAND), image.width, lower
