"""Picture files that users send, opened with care: formats and sizes have bounds. No torch here."""

from collections.abc import Sequence
from io import BytesIO
from typing import Final

from PIL import Image, UnidentifiedImageError

from shared.errors import InvalidRequest

FORMATS: Final = ("PNG", "JPEG", "WEBP")
_BROKEN: Final = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
)


def open_picture(
    field: str, data: bytes, most: int, formats: Sequence[str] = FORMATS
) -> Image.Image:
    """The picture in the file `data`, wholly read, and refused before that if it has more than
    `most` pixels. Raises `InvalidRequest` about `field`."""
    try:
        image = Image.open(BytesIO(data), formats=formats)
        if image.width * image.height > most:
            found = f"{image.width}x{image.height} pixels"
            raise InvalidRequest(field, found, f"images of at most {most} pixels")
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidRequest(field, str(error), f"images of at most {most} pixels") from error
    except _BROKEN as error:
        kinds = ", ".join(kind.lower() for kind in formats[:-1])
        kinds += f" or {formats[-1].lower()}" if kinds else formats[-1].lower()
        allowed = f"an image that is a whole {kinds} of at most {most} pixels"
        raise InvalidRequest(field, f"{len(data)} bytes that are none", allowed) from error
    return image
