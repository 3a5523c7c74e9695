"""The names of FLUX's layers in Black Forest Labs' own code, and in XLabs'."""

import re
from collections.abc import Mapping
from typing import Final

from shared.models.files.layers import Piece
from shared.models.files.safetensors_header import Shapes

_ENDS: Final = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_SWAPPED: Final = {"final_layer.adaLN_modulation.1": "norm_out.linear"}
"""There shift comes first, in diffusers scale."""
_IMAGE: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
_TEXT: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_DOUBLE: Final[Mapping[str, tuple[str, ...]]] = {
    "img_attn.qkv": _IMAGE,
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": _TEXT,
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    # XLabs
    "qkv1": _IMAGE,
    "proj1": ("attn.to_out.0",),
    "qkv2": _TEXT,
    "proj2": ("attn.to_add_out",),
    # diffusers, once it has fused the projections, or of its attention processors
    "attn.to_qkv": _IMAGE,
    "attn.to_added_qkv": _TEXT,
    "attn.to_out": ("attn.to_out.0",),
}
_SINGLE: Final[Mapping[str, tuple[str, ...]]] = {
    "linear1": (*_IMAGE, "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
    "qkv": _IMAGE,
    "proj": ("proj_out",),
    "attn.to_qkv": _IMAGE,
}


def bfl_names(layers: Shapes) -> Mapping[str, tuple[Piece, ...]]:
    """What else the `layers` (in diffusers' names) of a FLUX transformer are called."""
    found: dict[str, tuple[Piece, ...]] = {theirs: (Piece(ours),) for theirs, ours in _ENDS.items()}
    found |= {theirs: (Piece(ours, swapped=True),) for theirs, ours in _SWAPPED.items()}
    blocks = {m[0]: m for m in map(re.compile(r"(single_)?\w+?_blocks\.(\d+)").match, layers) if m}
    for ours, match in blocks.items():
        theirs = f"{match[1] or 'double_'}blocks.{match[2]}"
        for name, parts in (_SINGLE if match[1] else _DOUBLE).items():
            block = ours if name.startswith("attn.") else theirs
            found[f"{block}.{name}"] = tuple(Piece(f"{ours}.{part}") for part in parts)
    return {name: pieces for name, pieces in found.items() if pieces[0].layer in layers}
