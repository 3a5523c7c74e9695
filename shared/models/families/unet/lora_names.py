"""The names of a UNet's layers in Stability's own code (sgm), which most trainers have kept."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from shared.models.files.layers import Piece
from shared.models.files.safetensors_header import Shapes

_ENDS: Final = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
}
_IN_RESNETS: Final = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_FUSED: Final = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
}
"""Of diffusers itself, once it has fused the projections."""


def sgm_names(layers: Shapes) -> Mapping[str, tuple[Piece, ...]]:
    """What else the `layers` (in diffusers' names) of a UNet are called."""
    modules = dict(_modules(layers))
    found: dict[str, tuple[Piece, ...]] = {
        theirs: (Piece(ours),) for theirs, ours in _ENDS.items() if ours in layers
    }
    for layer in layers:
        path, _, last = layer.rpartition(".")
        if layer.endswith(".to_out.0"):
            found[layer.removesuffix(".0")] = (Piece(layer),)
        if last == "to_v":
            for fused, parts in _FUSED.items():
                own = [f"{path}.{part}" for part in parts]
                if len({layers[one][1:] for one in own if one in layers}) == 1:
                    found[f"{path}.{fused}"] = tuple(map(Piece, own))
    for theirs, ours in modules.items():
        for name, pieces in [*found.items(), *((one, (Piece(one),)) for one in layers)]:
            if name.startswith(f"{ours}."):
                found[f"{theirs}.{_inner(ours, name[len(ours) + 1 :])}"] = pieces
    return found


def _inner(module: str, name: str) -> str:
    theirs = {ours: theirs for theirs, ours in _IN_RESNETS.items()}
    if "samplers" in module:
        return name if "up" in module else "op"
    return theirs.get(name, name) if "resnets" in module else name


def _modules(layers: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Theirs and ours, of all modules within the blocks."""
    present = {match[0] for one in layers if (match := re.match(r"\w+(?:\.\d+)?\.\w+\.\d+", one))}
    yield from _down(present)
    for number, kind in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        yield f"middle_block.{number}", f"mid_block.{kind}"
    yield from _up(present)


def _down(present: set[str]) -> Iterator[tuple[str, str]]:
    number = 1
    for block in _numbers(present, "down_blocks.{}.resnets.0"):
        for k in _numbers(present, f"down_blocks.{block}.resnets.{{}}"):
            yield f"input_blocks.{number}.0", f"down_blocks.{block}.resnets.{k}"
            yield f"input_blocks.{number}.1", f"down_blocks.{block}.attentions.{k}"
            number += 1
        if f"down_blocks.{block}.downsamplers.0" in present:
            yield f"input_blocks.{number}.0", f"down_blocks.{block}.downsamplers.0"
            number += 1


def _up(present: set[str]) -> Iterator[tuple[str, str]]:
    number = 0
    for block in _numbers(present, "up_blocks.{}.resnets.0"):
        attentions = f"up_blocks.{block}.attentions.0" in present
        for k in _numbers(present, f"up_blocks.{block}.resnets.{{}}"):
            yield f"output_blocks.{number}.0", f"up_blocks.{block}.resnets.{k}"
            yield f"output_blocks.{number}.1", f"up_blocks.{block}.attentions.{k}"
            number += 1
        place = f"output_blocks.{number - 1}.{2 if attentions else 1}"
        yield place, f"up_blocks.{block}.upsamplers.0"


def _numbers(present: set[str], form: str) -> Iterator[int]:
    number = 0
    while form.format(number) in present:
        yield number
        number += 1
