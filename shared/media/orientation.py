"""How an image has to be turned to be upright (Exif 2.32, tag 0x0112; XMP, tiff:Orientation)."""

import re
import struct
from typing import Final

from PIL import Image

UPRIGHT: Final = 1
_TAG: Final = 0x0112
_FORMATS: Final = {1: "B", 3: "H", 4: "I"}
"""By TIFF type: byte, short, long."""
_PREFIX: Final = b"Exif\0\0"
_XMP: Final = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([0-9]+)\s*[\"'<]")
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS: Final = (5, 6, 7, 8)
"""Those that exchange width and height."""


def orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """From 1 to 8: what EXIF says, else XMP; upright if neither can be understood."""
    said = _from_exif(exif or b"")
    if said is None:
        match = _XMP.search(xmp or b"")
        said = UPRIGHT if match is None else int(match.group(1)[:4])
    return said if said in _TURNS else UPRIGHT


def upright(image: Image.Image, said: int) -> Image.Image:
    turn = _TURNS.get(said)
    return image if turn is None else image.transpose(turn)


def _from_exif(exif: bytes) -> int | None:
    """None: it says nothing. Only the first directory is read, as far as there is one, so damage
    elsewhere does no harm."""
    while exif.startswith(_PREFIX):
        exif = exif[len(_PREFIX) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (entries,) = struct.unpack(f"{order}H", exif[start : start + 2].ljust(2, b"\0"))
    for k in range(entries):
        entry = exif[start + 2 + 12 * k : start + 14 + 12 * k]
        if len(entry) < 12:
            return None
        tag, kind, count = struct.unpack_from(f"{order}HHI", entry)
        if tag == _TAG:
            known = kind in _FORMATS and count == 1
            return struct.unpack_from(order + _FORMATS[kind], entry, 8)[0] if known else UPRIGHT
    return None
