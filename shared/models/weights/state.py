"""The weights of a module as one file of safetensors, as they lie in memory.

The format knows no strides. What lies in another order than its shape says (channels last, say) is
written as it lies, under its shape, and the file's metadata tells the strides: whoever maps the
file has the same bytes in the same order without a copy.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from safetensors.torch import save_file
from torch import nn

from shared.models.files.safetensors_header import read_header

_STRIDES: Final = "strides"
_FORMAT: Final = {"format": "pt"}
"""Without it the libraries do not know whose tensors these are."""


def weights_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, and the buffers that files have."""
    return iter(module.state_dict().values())


def write_state(path: Path, module: nn.Module, names: Collection[str]) -> None:
    """Write the weights of `module` to `path`. One that has several names is written once, by one
    of `names` if it can be. Raises `OSError` or what safetensors does if that fails."""
    state = _once_each(module.state_dict(), names)
    strides = {
        name: tensor.stride()
        for name, tensor in state.items()
        if _dense(tensor) and tensor.stride() != _contiguous(tensor.shape)
    }
    metadata = {**_FORMAT, _STRIDES: msgspec.json.encode(strides).decode()}
    save_file({name: _as_it_lies(tensor) for name, tensor in state.items()}, path, metadata)


def lay_out_as_written(module: nn.Module, path: Path) -> None:
    """Give the weights of `module`, which were read from the file at `path` by their shapes alone,
    the strides that they were written with."""
    noted = read_header(path).metadata.get(_STRIDES, "{}")
    strides = msgspec.json.decode(noted, type=dict[str, tuple[int, ...]])
    state = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    for name, stride in strides.items():
        weight = state[name]
        weight.data = weight.data.as_strided(weight.shape, stride)


def _once_each(
    state: Mapping[str, torch.Tensor], names: Collection[str]
) -> dict[str, torch.Tensor]:
    found: dict[Any, str] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place not in found or (name in names and found[place] not in names):
            found[place] = name
    return {name: state[name] for name in found.values()}


def _as_it_lies(tensor: torch.Tensor) -> torch.Tensor:
    """Its numbers in the order of their addresses, under its shape, if they lie side by side."""
    return (
        tensor.as_strided(tensor.shape, _contiguous(tensor.shape))
        if _dense(tensor)
        else tensor.contiguous()
    )


def _dense(tensor: torch.Tensor) -> bool:
    """Whether its numbers lie side by side, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of numbers in the order of their shape."""
    return tuple(prod(shape[place + 1 :]) for place in range(len(shape)))
