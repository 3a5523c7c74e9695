"""What travels instead of a tensor. No torch here: planners and clients read handles too."""

from math import isfinite, prod
from typing import Final

import msgspec

INLINE_LIMIT: Final = 8 * 1024
"""Tensors of at most this many bytes travel inside their handle."""

MAX_RANK: Final = 8
MAX_ELEMENTS: Final = 1 << 40
"""Empty extents count as 1: torch multiplies the others even then."""
MAX_TEXT: Final = 128
"""Characters of an id, a host or an address."""
MAX_NUMBER: Final = (1 << 63) - 1

DTYPE_BYTES: Final = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float64": 8,
    "uint8": 1,
    "int32": 4,
    "int64": 8,
}


class ArenaSlot(msgspec.Struct, frozen=True, kw_only=True):
    """Where bytes lie in a shared-memory arena."""

    host: str
    """Host and boot id: a handle from before a reboot points nowhere."""
    arena: str
    slot: int
    generation: int
    offset: int
    address: str = ""
    """Where other hosts can pull it, as `host:port`; empty: only its own host can have it."""

    def __post_init__(self) -> None:
        for name in ("slot", "generation", "offset"):
            _check_number(name, getattr(self, name), MAX_NUMBER)
        for name in ("host", "arena", "address"):
            _check_text(name, getattr(self, name))


class TensorHandle(msgspec.Struct, frozen=True, kw_only=True, tag="tensor"):
    """A tensor's description, and its bytes (`inline`) or where they are (`slot`)."""

    dtype: str
    """A key of `DTYPE_BYTES`."""
    shape: tuple[int, ...]
    nbytes: int
    checksum: int
    """CRC-32 of the bytes."""
    job_id: str
    attempt: int
    expires_at: float
    """Unix seconds; the owner may reuse the slot afterwards."""
    slot: ArenaSlot | None = None
    inline: bytes | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"dtype: {self.dtype!r} is not one of {sorted(DTYPE_BYTES)}")
        _check_shape(self.shape)
        _check_number("checksum", self.checksum, 0xFFFFFFFF)
        _check_number("attempt", self.attempt, MAX_NUMBER)
        _check_text("job_id", self.job_id)
        if not isfinite(self.expires_at):
            raise ValueError(f"expires_at: {self.expires_at} is no time")
        if prod(self.shape) * DTYPE_BYTES[self.dtype] != self.nbytes:
            raise ValueError(f"nbytes: {self.nbytes} does not fit {self.dtype} of {self.shape}")
        if (self.slot is None) == (self.inline is None):
            raise ValueError("slot, inline: exactly one of them must be given")
        if self.inline is not None and len(self.inline) != self.nbytes:
            raise ValueError(f"inline: {len(self.inline)} bytes, but nbytes is {self.nbytes}")

    @property
    def name(self) -> str:
        """For messages to people: `arena/slot@generation`, or `inline`."""
        if self.slot is None:
            return "inline"
        return f"{self.slot.arena}/{self.slot.slot}@{self.slot.generation}"


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) > MAX_RANK:
        raise ValueError(f"shape: {len(shape)} extents are over the limit of {MAX_RANK}")
    if any(extent < 0 for extent in shape):
        raise ValueError(f"shape: {shape} has a negative extent")
    if prod(extent or 1 for extent in shape) > MAX_ELEMENTS:
        raise ValueError(f"shape: {shape} is over the limit of {MAX_ELEMENTS} elements")


def _check_number(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{name}: {value} is not from 0 to {most}")


def _check_text(name: str, value: str) -> None:
    if len(value) > MAX_TEXT:
        raise ValueError(f"{name}: {len(value)} characters are over the limit of {MAX_TEXT}")


Buffer = bytes | bytearray | memoryview
"""Bytes without a type of their own: not every dtype here has one in Python."""


def byte_view(data: Buffer, dtype: str, shape: tuple[int, ...]) -> memoryview:
    """`data` (C-contiguous) as plain bytes. Raises `ValueError` if it is no `dtype` of `shape`."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise ValueError("data: not C-contiguous")
    width = DTYPE_BYTES.get(dtype)
    if width is None:
        raise ValueError(f"dtype: {dtype!r} is not one of {sorted(DTYPE_BYTES)}")
    if any(extent < 0 for extent in shape) or prod(shape) * width != view.nbytes:
        raise ValueError(f"data: {view.nbytes} bytes are not {dtype} of {shape}")
    return view.cast("B") if view.nbytes else memoryview(b"")
