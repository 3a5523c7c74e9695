"""Pictures to edit, masks for them, and their files."""

import struct
import zlib
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageDraw

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


TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How the pixels lie in a file of each orientation whose picture is upright."""


def turned(image: Image.Image, orientation: int, form: str = "PNG", **options: Any) -> bytes:
    """A file that a viewer shows as `image`, whose pixels lie otherwise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(image.transpose(TURNED[orientation]), form, exif=exif.tobytes(), **options)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One of a png."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(samples: np.ndarray[Any, Any], depth: int, colour: int, *more: bytes) -> bytes:
    """A png of samples (height, width, channels) as they are, with `more` chunks before its data;
    Pillow writes no 16 bits of colours."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = (chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A png with these chunks, well-formed or not, behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A jpeg with these segments, well-formed or not, at its beginning."""
    return data[:2] + b"".join(segments) + data[2:]


@cache
def profile(space: str) -> bytes:
    """An ICC profile: `srgb`, or `swapped`, sRGB whose red and blue are exchanged. It says in which
    second it was made, so each is made once."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if space == "swapped":
        red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
        data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)
