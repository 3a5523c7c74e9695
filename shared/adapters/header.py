"""The beginning of a safetensors file: its tensors' names, and how long the whole file must be.

8 bytes, little-endian: the length of what follows, a JSON object; then the tensors' bytes.
https://huggingface.co/docs/safetensors
"""

from typing import Final

import msgspec

MAX_HEADER: Final = 8 * 1024 * 1024
"""Bytes. A LoRA for all of SDXL's layers has half of one million."""
_METADATA: Final = "__metadata__"


class NotSafetensors(ValueError):
    """What was read is not the beginning of such a file."""


class Header(msgspec.Struct, frozen=True):
    """`keys`: of the tensors; `file_bytes`: of the whole file."""

    keys: tuple[str, ...]
    file_bytes: int


class _Tensor(msgspec.Struct, frozen=True):
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
        entries.pop(_METADATA, None)
        ends = [msgspec.json.decode(e, type=_Tensor).data_offsets[1] for e in entries.values()]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotSafetensors(f"it is not a safetensors file: {error}") from error
    return Header(tuple(entries), length + max(ends, default=0))
