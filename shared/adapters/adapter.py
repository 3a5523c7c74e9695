"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) read from safetensors files.

An adapter adds `scale · up · down` to the weights of some layers of a network. Its file may have
the keys of diffusers and PEFT, or of kohya's scripts; diffusers' own conversion makes them one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from shared.errors import AdapterUnusable
from shared.families.base import Family

_KEY: Final = re.compile(
    r"(?P<layer>.+?)\.(?:(?P<projection>to_(?:q|k|v|out))_lora\.|lora\.|lora_linear_layer\.|lora_)"
    r"(?P<matrix>A|B|down|up)(?:\.default)?\.weight"
)
"""PEFT's form, and the two older ones of diffusers."""
_IN_DENOISERS: Final = {"to_out": "to_out.0"}
_IN_TEXT_ENCODERS: Final = {
    "to_q": "q_proj",
    "to_k": "k_proj",
    "to_v": "v_proj",
    "to_out": "out_proj",
}
"""What layers are called whose name in the key is that of diffusers' attention processors."""
_Pair = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What an adapter adds to one layer's weights: `up · down`, for a scale of 1.

    `down` (r, in) or (r, in, height, width), `up` (out, r) or (out, r, 1, 1)."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def fits(self, weight: torch.Tensor) -> bool:
        """Whether it can be added to `weight` (out, in) or (out, in, height, width)."""
        return (
            self.down.shape[1:] == weight.shape[1:]
            and self.up.shape[:2] == (weight.shape[0], self.rank)
            and all(size == 1 for size in self.up.shape[2:])
        )


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """`parts`: by network (see `Family.lora_keys`) and by the name of the layer in it."""

    name: str
    parts: Mapping[str, Mapping[str, LowRank]]

    @property
    def nbytes(self) -> int:
        layers = [layer for part in self.parts.values() for layer in part.values()]
        return sum(layer.down.nbytes + layer.up.nbytes for layer in layers)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(layers)} of {part}" for part, layers in self.parts.items())
        return f"<Adapter {self.name}: layers {sizes}, {self.nbytes / 2**20:.1f} MiB>"


def read_adapter(
    name: str, path: Path, family: Family, parts: Sequence[str] | None = None
) -> Adapter:
    """What the adapter `name` in file `path` has for `parts`, None: for all that the model has. A
    file that has nothing for them is not read further than its header. Raises `AdapterUnusable`."""
    try:
        present = _parts(name, path, family)
        wanted = [part for part in parts or family.lora_keys if part in present]
        if not wanted:
            return Adapter(name, {})
        state, alphas, metadata = family.lora_state(path)
        found = {part: _layers(name, part, state, alphas, metadata) for part in wanted}
    except AdapterUnusable:
        raise
    except Exception as error:  # it is somebody's file: anything may be wrong with it
        raise AdapterUnusable(name, f"{path.name} cannot be read: {error}") from error
    for part, layers in found.items():
        if not layers:
            raise AdapterUnusable(name, f"the keys of its {part} are of no form that we know")
    return Adapter(name, found)


def _parts(name: str, path: Path, family: Family) -> set[str]:
    if not path.is_file():
        raise AdapterUnusable(name, f"there is no file {path.name}")
    with safe_open(path, framework="pt") as file:
        return parts_of(name, list(file.keys()), family)


def parts_of(name: str, keys: Sequence[str], family: Family) -> set[str]:
    """The networks of a model of `family` that the adapter `name` has weights for, by its tensors'
    `keys`. Raises `AdapterUnusable`."""
    every = tuple(start for starts in family.lora_keys.values() for start in starts)
    for key in keys:
        if not key.startswith(every):
            raise AdapterUnusable(name, f"{key} is no low-rank weight that we know")
        if "dora_scale" in key or "lora_magnitude_vector" in key:
            raise AdapterUnusable(name, f"{key}: weights that are decomposed (DoRA) are not served")
    if not keys:
        raise AdapterUnusable(name, "it has no weights")
    return {
        part
        for part, starts in family.lora_keys.items()
        if any(key.startswith(starts) for key in keys)
    }


def _layers(
    name: str,
    part: str,
    state: Mapping[str, torch.Tensor],
    alphas: Mapping[str, float],
    metadata: Mapping[str, Any],
) -> dict[str, LowRank]:
    prefix = f"{part}."
    if metadata.get(f"{part}.use_rslora"):
        raise AdapterUnusable(name, f"its {part} is scaled by rank's root (rsLoRA): not served")
    pairs: dict[str, _Pair] = {}
    for key, tensor in state.items():
        if key.startswith(prefix):
            layer, matrix = _place(name, part, key)
            pairs.setdefault(layer, {})[matrix] = tensor
    given = {
        _place(name, part, _weight_key(key))[0]: alpha
        for key, alpha in alphas.items()
        if key.startswith(prefix)
    }
    return {
        layer: _low_rank(name, f"{part}.{layer}", pair, _alpha(part, layer, given, metadata))
        for layer, pair in pairs.items()
    }


def _place(name: str, part: str, key: str) -> tuple[str, str]:
    """The layer that `key` is about, and which of the two matrices it is: A (down) or B (up)."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise AdapterUnusable(name, f"{key} is no low-rank weight that we know")
    layer = match["layer"].removeprefix(f"{part}.").removesuffix(".processor")
    if match["projection"]:
        names = _IN_TEXT_ENCODERS if part.startswith("text_encoder") else _IN_DENOISERS
        layer = f"{layer}.{names.get(match['projection'], match['projection'])}"
    return layer, {"down": "A", "up": "B"}.get(match["matrix"], match["matrix"])


def _weight_key(alpha_key: str) -> str:
    """The key of the weight that diffusers' name of an alpha is about."""
    key = alpha_key.removesuffix(".alpha")
    return key if key.endswith(".down.weight") else f"{key}.lora.down.weight"


def _alpha(
    part: str, layer: str, given: Mapping[str, float], metadata: Mapping[str, Any]
) -> float | None:
    """The layer's own alpha, or what PEFT noted about all of them; None: its rank."""
    if layer in given:
        return given[layer]
    patterns: Mapping[str, float] = metadata.get(f"{part}.alpha_pattern") or {}
    for pattern, alpha in patterns.items():
        if re.fullmatch(rf"(?:.*\.)?{pattern}", layer):
            return alpha
    common = metadata.get(f"{part}.lora_alpha")
    return None if common is None else float(common)


def _low_rank(name: str, layer: str, pair: _Pair, alpha: float | None) -> LowRank:
    if set(pair) != {"A", "B"}:
        raise AdapterUnusable(name, f"{layer} has only one of its two matrices")
    down, up = pair["A"], pair["B"]
    if (
        not down.shape[0]
        or down.dim() not in (2, 4)
        or up.dim() != down.dim()
        or up.shape[1] != down.shape[0]
    ):
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise AdapterUnusable(name, f"the two matrices of {layer} do not fit together: {shapes}")
    if not (down.isfinite().all() and up.isfinite().all()):
        raise AdapterUnusable(name, f"the weights of {layer} are not finite")
    rank = down.shape[0]
    # Copies: what was read is mapped from the file, which somebody may change.
    return LowRank(
        down.to(torch.float32, copy=True), up.float() * ((rank if alpha is None else alpha) / rank)
    )
