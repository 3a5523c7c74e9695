"""Options of UNets and their ControlNets; see `shared/models/contracts/options.py`."""

from typing import Final

from shared.models.contracts.options import Options

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
    "class_embed_type": (None,),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_class_embeds": (None,),
}
_READ_BY_UNETS: Final = frozenset(
    {
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
    }
)
_FIXED_IN_UNETS: Final = {
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "dual_cross_attention": (False,),
    "num_attention_heads": (None,),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_FIXED_IN_CONTROLNETS: Final = {
    "conditioning_channels": (3,),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "global_pool_conditions": (False,),
}


def unet_options(addition: str | None) -> Options:
    """Of a UNet whose `addition_embed_type` is `addition`."""
    return Options(
        "UNet2DConditionModel",
        _READ | _READ_BY_UNETS,
        {"addition_embed_type": (addition,), **_FIXED, **_FIXED_IN_UNETS},
        _needed(addition),
    )


def controlnet_options(addition: str | None) -> Options:
    """Of a ControlNet whose `addition_embed_type` is `addition`."""
    return Options(
        "ControlNetModel",
        _READ | {"conditioning_embedding_out_channels", "num_attention_heads"},
        {"addition_embed_type": (addition,), **_FIXED, **_FIXED_IN_CONTROLNETS},
        _needed(addition),
    )


def _needed(addition: str | None) -> frozenset[str]:
    """A config that does not say has none."""
    return frozenset() if addition is None else frozenset({"addition_embed_type"})
