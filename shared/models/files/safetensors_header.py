"""The beginning of a safetensors file: what its tensors are called, and how long it must be.

8 bytes, little-endian: the length of what follows, a JSON object; then the tensors' bytes.
https://huggingface.co/docs/safetensors
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Final

import msgspec

MAX_HEADER: Final = 8 * 1024 * 1024
"""Bytes. A LoRA for all of SDXL's layers has half of one million."""
_METADATA: Final = "__metadata__"

_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Of one number, by its type."""
KINDS: Final = frozenset(_BITS)
FLOATING: Final = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Types whose numbers are read as they are."""
OF_TORCH: Final[Mapping[str, str]] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""What those are called that weights are computed with."""

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Of tensors, by their names."""


class NotSafetensors(ValueError):
    """What was read is not the beginning of such a file."""


class Header(msgspec.Struct, frozen=True):
    """`shapes`: of the tensors, by their keys; `metadata`: what its writer noted; `file_bytes`: of
    the whole file; `kinds`: the types of the tensors' numbers, as the format calls them."""

    shapes: dict[str, Shape]
    metadata: dict[str, str]
    file_bytes: int
    kinds: dict[str, str] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def nbytes(self, key: str, dtype: str = "") -> int:
        """Of the tensor with this key, as it is in the file or, if it has fractions, as torch's
        `dtype`; 0 if its type is none that the format knows."""
        kind = self.kinds[key]
        if dtype and kind in FLOATING:
            kind = OF_TORCH[dtype]
        return prod(self.shapes[key]) * _BITS.get(kind, 0) // 8


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[int, int]


def header_bytes(start: bytes | bytearray) -> int:
    """The length of the header with the 8 bytes before it, by these. Raises `NotSafetensors`."""
    if len(start) < 8:
        raise NotSafetensors(f"it has {len(start)} bytes, and is not a safetensors file")
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= MAX_HEADER:
        raise NotSafetensors(
            "it is not a safetensors file, for its first bytes tell of a header of "
            f"{length} bytes; allowed: 2 to {MAX_HEADER}"
        )
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
    shapes = {key: one.shape for key, one in tensors.items()}
    kinds = {key: one.dtype for key, one in tensors.items()}
    return Header(shapes, metadata or {}, length + _end(tensors), kinds)


def _end(tensors: Mapping[str, _Tensor]) -> int:
    """Bytes of all of them, which lie one behind the other. Raises `NotSafetensors` if they do not,
    as it is where one key stands twice in a header, or if one is too short or too long."""
    end = 0
    for key, one in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        start, stop = one.data_offsets
        if start != end or stop < start:
            raise NotSafetensors(f"its tensors do not lie one behind the other, at {key}")
        end = stop
        needed = prod(one.shape) * _BITS.get(one.dtype, 0)
        if one.dtype in _BITS and 8 * (stop - start) != needed:
            shown = f"{one.dtype} of {tuple(one.shape)}"
            raise NotSafetensors(f"{key} is {shown}, and has {stop - start} bytes")
    return end


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
