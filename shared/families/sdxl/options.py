"""Options of SDXL's networks; see `shared/families/options.py`."""

from typing import Final

from shared.families.options import Options

TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")
"""Folders of its text encoders, in their order."""
SIZES: Final = 6
"""Numbers that every network is told; see `Sdxl.numbers`."""
_READ: Final = frozenset(
    {
        "act_fn",
        "addition_embed_type_num_heads",
        "addition_time_embed_dim",
        "attention_head_dim",
        "block_out_channels",
        "cross_attention_dim",
        "downsample_padding",
        "flip_sin_to_cos",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "mid_block_scale_factor",
        "norm_eps",
        "norm_num_groups",
        "only_cross_attention",
        "projection_class_embeddings_input_dim",
        "resnet_time_scale_shift",
        "transformer_layers_per_block",
        "upcast_attention",
        "use_linear_projection",
    }
)
_FIXED: Final = {
    "addition_embed_type": ("text_time",),
    "class_embed_type": (None,),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (None,),
}
_NEEDED: Final = frozenset({"addition_embed_type"})

UNET: Final = Options(
    "UNet2DConditionModel",
    _READ
    | {
        "center_input_sample",
        "conv_in_kernel",
        "conv_out_kernel",
        "cross_attention_norm",
        "dropout",
        "mid_block_only_cross_attention",
        "out_channels",
        "resnet_out_scale_factor",
        "resnet_skip_time_act",
        "reverse_transformer_layers_per_block",
        "sample_size",
        "time_cond_proj_dim",
        "time_embedding_act_fn",
        "time_embedding_dim",
        "time_embedding_type",
        "timestep_post_act",
    },
    _FIXED
    | {
        "attention_type": ("default",),
        "class_embeddings_concat": (False,),
        "dual_cross_attention": (False,),
        "num_attention_heads": (None,),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    _NEEDED,
)
CONTROLNET: Final = Options(
    "ControlNetModel",
    _READ | {"conditioning_embedding_out_channels", "num_attention_heads"},
    _FIXED
    | {
        "conditioning_channels": (3,),
        "controlnet_conditioning_channel_order": ("rgb", "bgr"),
        "global_pool_conditions": (False,),
    },
    _NEEDED,
)
