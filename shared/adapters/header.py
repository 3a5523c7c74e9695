"""The beginning of a safetensors file: what its tensors are called, and how long it must be.

8 bytes, little-endian: the length of what follows, a JSON object; then the tensors' bytes.
https://huggingface.co/docs/safetensors
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

MAX_HEADER: Final = 8 * 1024 * 1024
"""Bytes. A LoRA for all of SDXL's layers has half of one million."""
_METADATA: Final = "__metadata__"

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Of tensors, by their names."""


class NotSafetensors(ValueError):
    """What was read is not the beginning of such a file."""


class Header(msgspec.Struct, frozen=True):
    """`shapes`: of the tensors, by their keys; `metadata`: what its writer noted; `file_bytes`: of
    the whole file."""

    shapes: dict[str, Shape]
    metadata: dict[str, str]
    file_bytes: int

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.shapes)


class _Tensor(msgspec.Struct, frozen=True):
    shape: Shape
    data_offsets: tuple[int, int]


def header_bytes(start: bytes | bytearray) -> int:
    """The length of the header with the 8 bytes before it, by these. Raises `NotSafetensors`."""
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= MAX_HEADER:
        raise NotSafetensors("it is not a safetensors file")
    return 8 + length


def parse_header(start: bytes | bytearray) -> Header | None:
    """The header at the `start` of a file; None if that is cut off. Raises `NotSafetensors`."""
    if len(start) < 8 or len(start) < (length := header_bytes(start)):
        return None
    try:
        entries = msgspec.json.decode(start[8:length], type=dict[str, msgspec.Raw])
        noted = entries.pop(_METADATA, msgspec.Raw(b"null"))
        metadata = msgspec.json.decode(noted, type=dict[str, str] | None)
        tensors = {k: msgspec.json.decode(entry, type=_Tensor) for k, entry in entries.items()}
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotSafetensors(f"it is not a safetensors file: {error}") from error
    ends = [one.data_offsets[1] for one in tensors.values()]
    shapes = {key: one.shape for key, one in tensors.items()}
    return Header(shapes, metadata or {}, length + max(ends, default=0))


def read_header(path: Path) -> Header:
    """The header of the file at `path`, which must be whole. Raises `NotSafetensors`, `OSError`."""
    with path.open("rb") as file:
        start = file.read(8)
        start += file.read(header_bytes(start) - 8)
    header = parse_header(start)
    if header is None:
        raise NotSafetensors("it ends in its header")
    size = path.stat().st_size
    if size != header.file_bytes:
        raise NotSafetensors(f"it has {size} bytes, and its header tells of {header.file_bytes}")
    return header
