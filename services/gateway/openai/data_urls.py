"""Files that come as text: base64, or data URLs (RFC 2397)."""

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

MAX_HEAD: Final = 1024
"""Characters before the comma of a data URL."""
_HEAD: Final = re.compile(r"data:([^,]*),", re.IGNORECASE)
_OTHER: Final = re.compile(r"image/(?!(x-)?(png|p?jpeg|jpg|webp)$)")
"""Types that are no png, jpeg or webp."""
_SPACES: Final = b" \t\r\n"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


def file_of(text: str) -> bytes:
    """The file in bare base64, or in a data URL, whose type and parameters may be anything but
    those of another format. Line breaks and the alphabet of URLs are understood. Raises
    `ValueError`."""
    text = text.strip()
    if text[:5].lower() != "data:":
        return _from_base64(text.encode("ascii"))
    head = _HEAD.match(text[:MAX_HEAD])
    if head is None:
        raise ValueError("a data URL without a comma")
    kind, *parameters = (part.strip().lower() for part in head.group(1).split(";"))
    if "base64" not in parameters or _OTHER.match(kind):
        raise ValueError(f"a data URL of {head.group(1)!r}")
    content = text[head.end() :]
    return _from_base64(unquote_to_bytes(content) if "%" in content else content.encode("ascii"))


def _from_base64(text: bytes) -> bytes:
    return base64.b64decode(text.translate(_URL_SAFE, delete=_SPACES), validate=True)
