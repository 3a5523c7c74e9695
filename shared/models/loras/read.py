"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) read from safetensors files.

An adapter adds `scale · up · down` to the weights of some layers of a network. Its file may be in
any of the dialects of `shared/models/loras/keys.py`; every tensor of it is used, or named.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from shared.errors import AdapterUnusable
from shared.models.contracts.family import Family
from shared.models.files.layers import Piece
from shared.models.files.safetensors_header import Header, read_header
from shared.models.loras.layout import Source, is_by_input, layout
from shared.models.loras.notes import Notes
from shared.models.lowrank.weights import Adapter, LowRank
from shared.residency.item import Pieces, at_once


def read_adapter(
    name: str,
    path: Path,
    family: Family,
    parts: Sequence[str] | None = None,
    *,
    partial: bool = False,
) -> Adapter:
    """As `reading`, at once."""
    return at_once(reading(name, path, family, parts, partial=partial))


def reading(
    name: str,
    path: Path,
    family: Family,
    parts: Sequence[str] | None = None,
    *,
    partial: bool = False,
) -> Pieces[Adapter]:
    """What the adapter `name` in file `path` has for `parts`, None: for all that the model has. A
    file that has nothing for them is not read further than its header. Raises `AdapterUnusable`,
    unless `partial` also if a tensor of it has no use."""
    if not path.is_file():
        raise AdapterUnusable(name, f"there is no file {path.name}")
    try:
        header = read_header(path)
        found = layout(name, header, family, partial=partial)
        wanted = found.parts.intersection(parts or family.parts)
        if absent := [part for part in wanted if not family.layers[part]]:
            raise AdapterUnusable(
                name, f"the files of the model's {absent[0]} are not on this host"
            )
        sources = [source for source in found.sources if source.part in wanted]
        layers = (yield from _layers(name, path, header, sources, family)) if sources else {}
    except AdapterUnusable:
        raise
    except Exception as error:  # it is somebody's file: anything may be wrong with it
        raise AdapterUnusable(name, f"{path.name} cannot be read: {error}") from error
    return Adapter(name, layers, found.said())


def _layers(
    name: str, path: Path, header: Header, sources: Sequence[Source], family: Family
) -> Pieces[dict[str, dict[str, LowRank]]]:
    """By network and layer; a piece for each place in the file."""
    notes = Notes(name, header)
    found: dict[str, dict[str, LowRank]] = {}
    with safe_open(path, framework="pt") as file:
        for source in sources:
            whole = _whole(name, file, source, notes)
            found.setdefault(source.part, {}).update(_split(source, whole, family))
            yield whole.nbytes
    return found


def _whole(name: str, file: Any, source: Source, notes: Notes) -> LowRank:
    """What the file has for a place, whatever layers that is."""
    stored = {role: file.get_tensor(key) for role, key in source.keys.items()}
    layer = source.pieces[0].layer
    for role, tensor in stored.items():
        if role != "alpha" and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise AdapterUnusable(name, f"the {role} of {source.part}.{layer} is {kind}")
    tensors = {role: tensor.to(torch.float32) for role, tensor in stored.items()}
    for role, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterUnusable(name, f"the {role} of {source.part}.{layer} is not finite")
    alpha = float(tensors["alpha"]) if "alpha" in tensors else None
    scale = notes.scale(source.part, layer, len(tensors["down"]), alpha)
    bias = _sum(
        tensors["bias"].flatten() * scale if "bias" in tensors else None,
        tensors["bias_difference"].flatten() if "bias_difference" in tensors else None,
    )
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    return LowRank(
        # Copies: what was read is mapped from the file, which somebody may change.
        tensors["down"].clone(),
        tensors["up"].reshape(-1, len(tensors["down"])) * scale,
        bias if bias is None else bias.clone(),
        magnitude if magnitude is None else magnitude.flatten().clone(),
        "dora_scale" in tensors and is_by_input(tensors["dora_scale"].shape),
    )


def _sum(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return other if one is None else one if other is None else one + other


def _split(source: Source, whole: LowRank, family: Family) -> Iterator[tuple[str, LowRank]]:
    """The share of each layer, in the shapes of its weights."""
    shapes = family.layers[source.part]
    start = 0
    for piece in source.pieces:
        outputs, *inputs = shapes[piece.layer]
        rows = slice(start, start + outputs)
        start += outputs
        down = whole.down.reshape(whole.rank, *inputs)
        up = _rows(whole.up, rows, piece).reshape(outputs, whole.rank, *[1] * (len(inputs) - 1))
        bias, magnitude = (
            None if vector is None else _rows(vector, rows, piece)
            for vector in (whole.bias, None if whole.by_input else whole.magnitude)
        )
        if whole.by_input:
            magnitude = whole.magnitude
        yield piece.layer, LowRank(down, up, bias, magnitude, whole.by_input)


def _rows(tensor: torch.Tensor, rows: slice, piece: Piece) -> torch.Tensor:
    found = tensor[rows]
    return found.roll(len(found) // 2, 0) if piece.swapped else found
