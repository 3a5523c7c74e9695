"""The layers of a model's networks, by the headers of their files: no torch here, and no weights
are read."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from shared.errors import Misconfigured
from shared.models.files.directory import local_directory
from shared.models.files.safetensors_header import NotSafetensors, Shapes, read_header

CLIP: Final = "text_model."
"""What CLIP's layers stood in once, and still do in most files."""
_WEIGHT: Final = ".weight"
_BIAS: Final = ".bias"
_NO_LAYER: Final = re.compile(r"(?:^shared|embed_tokens|_embedding|relative_attention_bias)$")
"""Of tables, in which rows are looked up."""
_CLIP_ATTENTION: Final = {
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "out_proj": "to_out",
}
"""What diffusers' attention processors called them."""


class Piece(NamedTuple):
    """A layer that a LoRA's place is, or is a part of. `swapped`: the two halves of its outputs
    stand the other way round there."""

    layer: str
    swapped: bool = False


def layer_shapes(source: str, part: str) -> Shapes:
    """Of the weights of the linear and convolutional layers in folder `part` of the model `source`
    by the layer's name; none if its files are not on this host."""
    return {
        key.removesuffix(_WEIGHT): shape
        for key, shape in _shapes(source, part).items()
        if key.endswith(_WEIGHT)
        and len(shape) in (2, 4)
        and not _NO_LAYER.search(key.removesuffix(_WEIGHT))
    }


def biased_layers(source: str, part: str) -> frozenset[str]:
    """Those that have a bias."""
    keys = _shapes(source, part)
    return frozenset(key.removesuffix(_BIAS) for key in keys if key.endswith(_BIAS))


def _shapes(source: str, part: str) -> Shapes:
    try:
        files = sorted((local_directory(source) / part).glob("*.safetensors"))
        shapes = {key: s for file in files for key, s in read_header(file).shapes.items()}
    except (Misconfigured, NotSafetensors, OSError):
        return {}
    return {key.removeprefix(CLIP): shape for key, shape in shapes.items()}


def clip_names(layers: Shapes) -> Mapping[str, tuple[Piece, ...]]:
    """What else CLIP's layers are called."""
    found = {}
    for layer in layers:
        path, _, last = layer.rpartition(".")
        if last in _CLIP_ATTENTION:
            found[f"{path}.{_CLIP_ATTENTION[last]}"] = (Piece(layer),)
    return found
