"""Options of FLUX's transformer; see `shared/models/contracts/options.py`."""

from typing import Final

from shared.models.contracts.options import Options

TRANSFORMER: Final = Options(
    "FluxTransformer2DModel",
    frozenset(
        {
            "attention_head_dim",
            "axes_dims_rope",
            "guidance_embeds",
            "in_channels",
            "joint_attention_dim",
            "num_attention_heads",
            "num_layers",
            "num_single_layers",
            "out_channels",
            "pooled_projection_dim",
        }
    ),
    {"patch_size": (1,)},
)
"""Its patches of two by two latent positions are made by the pipeline, and so by us."""
