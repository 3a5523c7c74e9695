"""Bytes as people write them: `8GB`, `512MiB`, `1000000`."""

import re
from typing import Final

UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
ALLOWED: Final = "a number of bytes, with or without a unit such as MB, GiB"
_FORM: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")


class ByteSize(int):
    """A number of bytes, from text. Raises `ValueError` that says what is allowed."""

    def __new__(cls, text: str) -> "ByteSize":
        match = _FORM.fullmatch(text.strip())
        if match is None or match[2].lower() not in UNITS:
            raise ValueError(f"allowed: {ALLOWED}")
        return super().__new__(cls, round(float(match[1]) * UNITS[match[2].lower()]))
