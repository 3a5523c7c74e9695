"""PNG files, chunk by chunk (PNG specification, third edition, §5)."""

import itertools
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from PIL import Image

from shared.media.stripped import Stripped, counted, inflated

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KNOWN: Final = re.compile(b"IHDR|PLTE|IDAT|IEND|tRNS|iCCP|eXIf|[itz]TXt")
_PIXELS: Final = (b"IHDR", b"PLTE", b"IDAT")
_BEFORE_DATA: Final = (b"tRNS", b"iCCP")
"""Behind pixels they come too late, and count as none."""
_XMP: Final = b"XML:com.adobe.xmp"
_RAW_EXIF: Final = b"Raw profile type exif"
MAX_DAMAGED: Final = 16
"""Chunks of metadata that may be damaged."""
GREY, RGB, PALETTE = 0, 2, 3
"""Colour types that a tRNS chunk goes with."""

_SAMPLES: Final = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}
"""Of a pixel, by colour type."""
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Passes of an interlaced image: its first column and row, and the steps to the next ones."""
_PIECE: Final = 1024 * 1024

Chunk = tuple[bytes, bytes]
"""Type and content."""


def strip(data: bytes) -> Stripped:
    """The first image of a PNG file. Of animated files that is the one which viewers without
    animations show."""
    pixels: list[Chunk] = []
    about: dict[bytes, bytes] = {}
    for kind, content in _chunks(data):
        if kind in _PIXELS:
            pixels.append((kind, content))
        elif kind in _BEFORE_DATA and pixels and pixels[-1][0] == b"IDAT":
            continue
        elif kind.endswith(b"TXt"):
            about.update(_text(kind, content))
        else:
            about.setdefault(kind, content)
    return Stripped(
        _file(pixels, about.get(b"tRNS")),
        exif=about.get(b"eXIf") or _raw_exif(about.get(_RAW_EXIF)),
        xmp=about.get(_XMP),
        profile=_profile(about.get(b"iCCP")),
    )


def _chunks(data: bytes) -> Iterator[Chunk]:
    """Those that are of use. One that is not what it says, but for pixels, is passed over, and the
    next one is looked for: its length may be wrong."""
    position, damaged = len(SIGNATURE), 0
    for number in itertools.count(1):
        if position + 8 > len(data) or damaged > MAX_DAMAGED:
            return
        counted(number)
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        end = position + 12 + length
        if kind == b"IEND":
            return
        if kind in _PIXELS or _is_whole(data, kind, content, end):
            yield kind, content
            position = end
        else:
            position, damaged = _next(data, position + 8), damaged + 1


def _is_whole(data: bytes, kind: bytes, content: bytes, end: int) -> bool:
    return data[end - 4 : end] == struct.pack(">I", zlib.crc32(kind + content))


def _next(data: bytes, position: int) -> int:
    """Where the next whole chunk of a known type begins; its checksum says that it is whole."""
    most = 4 * len(data)  # bytes that are summed up in vain
    for match in _KNOWN.finditer(data, position):
        start = match.start() - 4
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data):
            continue
        content = data[start + 8 : end - 4]
        most -= length
        if most < 0:
            break
        if _is_whole(data, match.group(), content, end):
            return start
    return len(data)


def _text(kind: bytes, content: bytes) -> dict[bytes, bytes]:
    """The text that a chunk holds, by its keyword, if it says something about pixels."""
    keyword, _, rest = content.partition(b"\0")
    if keyword not in (_XMP, _RAW_EXIF):
        return {}
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.split(b"\0", 2)[-1]  # behind its language and its translated keyword
    text = inflated(rest) if packed else rest
    return {} if text is None else {keyword: text}


def _raw_exif(text: bytes | None) -> bytes | None:
    """EXIF in hexadecimal digits, behind a name and a length, as ImageMagick writes it."""
    lines = (text or b"").split(b"\n", 3)
    try:
        return bytes.fromhex(lines[-1].decode("ascii")) if len(lines) == 4 else None
    except ValueError:
        return None


def _profile(content: bytes | None) -> bytes | None:
    name, _, packed = (content or b"").partition(b"\0")
    return inflated(packed[1:]) if name and packed else None


def _file(pixels: list[Chunk], transparency: bytes | None) -> bytes:
    """A PNG file of these chunks."""
    chunks = list(pixels)
    if transparency is not None:
        depth, colour = _header(pixels)
        fitting = _transparency(depth, colour, transparency)
        first = next((k for k, (kind, _) in enumerate(chunks) if kind == b"IDAT"), len(chunks))
        chunks[first:first] = [] if fitting is None else [(b"tRNS", fitting)]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [*chunks, (b"IEND", b"")]
    )


def lacks_rows(stripped: Stripped, image: Image.Image) -> bool:
    """Whether the data of `image`, which was decoded from `stripped`, ends before its last row.
    Pillow leaves the rest black, or transparent, and does not say so."""
    chunks = list(_chunks(stripped.pixels))
    depth, colour = _header(chunks)
    interlaced = chunks[0][1][12] != 0
    last = image.crop((0, image.height - 1, image.width, image.height))
    if not interlaced and last.getbbox(alpha_only=False) is not None:
        return False
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    wanted = sum(_pass_bytes(image.size, depth * _SAMPLES[colour], one) for one in passes)
    return _unpacked_bytes(content for kind, content in chunks if kind == b"IDAT") < wanted


def _pass_bytes(size: tuple[int, int], bits: int, one: tuple[int, int, int, int]) -> int:
    """Of one pass over the image: its rows, each with the byte that names its filter."""
    left, top, across, down = one
    columns, rows = -(-(size[0] - left) // across), -(-(size[1] - top) // down)
    return rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0


def _unpacked_bytes(contents: Iterable[bytes]) -> int:
    stream, found = zlib.decompressobj(), 0
    for content in contents:
        while content and not stream.eof:
            found += len(stream.decompress(content, _PIECE))
            content = stream.unconsumed_tail
    return found


def _header(pixels: list[Chunk]) -> tuple[int, int]:
    """Bits per sample, and colour type."""
    kind, content = pixels[0] if pixels else (b"", b"")
    return (content[8], content[9]) if kind == b"IHDR" and len(content) == 13 else (0, 0)


def _transparency(depth: int, colour: int, content: bytes) -> bytes | None:
    """The colour that is transparent, at the depth of the pixels that Pillow makes of it: it
    widens greys of 2 and 4 bits, and keeps the upper 8 bits of RGB. None: not as the format has
    it."""
    if colour == PALETTE:
        return content if 0 < len(content) <= 256 else None
    wanted = {GREY: 1, RGB: 3}.get(colour, 0)
    if not wanted or len(content) != 2 * wanted:
        return None
    samples = struct.unpack(f">{wanted}H", content)
    if colour == GREY and depth in (2, 4):
        samples = tuple(sample * 255 // (2**depth - 1) for sample in samples)
    elif colour == RGB and depth == 16:
        samples = tuple(sample >> 8 for sample in samples)
    return struct.pack(f">{wanted}H", *(min(sample, 0xFFFF) for sample in samples))
