"""Files that come as text: base64, or data URLs (RFC 2397). No other module reads either."""

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from services.gateway.openai.kinds.generation import AS_TEXT
from services.gateway.openai.refusals import InvalidField

MAX_HEAD: Final = 1024
"""Characters before the comma of a data URL."""
IN_JSON: Final = re.compile(
    rb'"(?:data:[^,"\\]{0,%d},)?[A-Za-z0-9+/=_-]{1000,}"(?!\s*:)' % MAX_HEAD, re.IGNORECASE
)
"""A long file within JSON, which no name in an object is."""
_HEAD: Final = re.compile(r"data:([^,]*),", re.IGNORECASE)
_OTHER: Final = re.compile(r"image/(?!(x-)?(png|p?jpeg|jpg|webp)$)")
"""Types that are no png, jpeg or webp."""
_SPACES: Final = b" \t\r\n"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_BASE64: Final = (b"iVBORw0KGgo", b"/9j/", b"UklGR")
"""How a png, a jpeg and a webp begin in base64."""
_ADDRESSES: Final = (b"data:", b"http://", b"https://", b"file:", b"blob:")


def file_of(field: str, text: str, allowed: str = AS_TEXT) -> bytes:
    """The file in bare base64, or in a data URL, whose type and parameters may be anything but
    those of another format. Line breaks and the alphabet of URLs are understood. Raises
    `InvalidField`."""
    try:
        return _content(text.strip())
    except ValueError as error:
        raise InvalidField(field, text[:MAX_HEAD], allowed) from error


def is_text(content: bytes) -> bool:
    """Whether this is no file, but the text of one, or an address."""
    return content[:8].lower().startswith(_ADDRESSES) or content.startswith(_BASE64)


def _content(text: str) -> bytes:
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
