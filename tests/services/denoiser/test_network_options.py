"""Every option of a network's config that is read is computed as diffusers computes it."""

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

from shared.models.families.flux.options import TRANSFORMER
from shared.models.families.flux.stream import packed, unpacked
from shared.models.families.flux.transformer import FluxTransformer
from shared.models.families.sdxl.options import UNET
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.unet import guidance_embedding
from tests.helpers.flux import make_transformer
from tests.services.denoiser.models import make_unet

UNETS: dict[str, list[Any]] = {
    "act_fn": ["gelu", "mish"],
    "addition_embed_type_num_heads": [2],
    "addition_time_embed_dim": [6],
    "attention_head_dim": [2, (4, 2)],
    "block_out_channels": [(16, 8)],
    "center_input_sample": [True],
    "conv_in_kernel": [5, 1],
    "conv_out_kernel": [5],
    "cross_attention_dim": [24],
    "cross_attention_norm": ["layer_norm", "group_norm"],
    "downsample_padding": [0],
    "dropout": [0.5],
    "flip_sin_to_cos": [False],
    "freq_shift": [1],
    "in_channels": [8],
    "layers_per_block": [2, (1, 2)],
    "mid_block_only_cross_attention": [True],
    "mid_block_scale_factor": [2.0],
    "norm_eps": [1e-2],
    "norm_num_groups": [2],
    "only_cross_attention": [True, (False, True)],
    "out_channels": [8],
    "projection_class_embeddings_input_dim": [40],
    "resnet_out_scale_factor": [2.0],
    "resnet_skip_time_act": [True],
    "resnet_time_scale_shift": ["scale_shift"],
    "reverse_transformer_layers_per_block": [(2, 1)],
    "sample_size": [16],
    "time_cond_proj_dim": [6, 7],
    "time_embedding_act_fn": ["silu"],
    "time_embedding_dim": [24],
    "time_embedding_type": ["fourier"],
    "timestep_post_act": ["silu"],
    "transformer_layers_per_block": [2, (1, 2)],
    "upcast_attention": [True],
    "use_linear_projection": [False],
}
TRANSFORMERS: dict[str, list[Any]] = {
    "attention_head_dim": [8],
    "axes_dims_rope": [(2, 6, 8)],
    "guidance_embeds": [True],
    "in_channels": [8],
    "joint_attention_dim": [20],
    "num_attention_heads": [3],
    "num_layers": [1],
    "num_single_layers": [1],
    "out_channels": [8],
    "pooled_projection_dim": [12],
}
TOGETHER: dict[tuple[str, str], dict[str, Any]] = {
    ("unet", "in_channels"): {"out_channels": 8},
    ("unet", "out_channels"): {"in_channels": 8},
    ("unet", "reverse_transformer_layers_per_block"): {
        "transformer_layers_per_block": ((1,), (2,))
    },
    ("transformer", "attention_head_dim"): {"axes_dims_rope": (2, 2, 4)},
    ("transformer", "in_channels"): {"out_channels": 8},
    ("transformer", "out_channels"): {"in_channels": 8},
}
"""What else has to change with an option."""


def test_every_option_that_is_read_is_here() -> None:
    assert set(UNETS) == UNET.read
    assert set(TRANSFORMERS) == TRANSFORMER.read


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in UNETS.items() for value in values]
)
def test_a_unet_is_as_diffusers_has_it(name: str, value: Any) -> None:
    unet = make_unet(**{name: value}, **TOGETHER.get(("unet", name), {}))
    network = SdxlUnet(unet)
    x, t, conditioning = network.example(2, 2, 2, 5)
    guidance = None
    if network.guidance_width is not None:
        guidance = guidance_embedding(conditioning.scalars[:, 6], network.guidance_width)
    expected = unet(
        x,
        t,
        encoder_hidden_states=conditioning.tensors["embeds"],
        timestep_cond=guidance,
        added_cond_kwargs={
            "text_embeds": conditioning.tensors["pooled"],
            "time_ids": conditioning.scalars[:, :6],
        },
    ).sample
    torch.testing.assert_close(network.predict(x, t, conditioning), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in TRANSFORMERS.items() for value in values]
)
def test_a_transformer_is_as_diffusers_has_it(name: str, value: Any) -> None:
    module: FluxTransformer2DModel = make_transformer(
        **{name: value}, **TOGETHER.get(("transformer", name), {})
    )
    network = FluxTransformer(module)
    x, t, conditioning = network.example(2, 2, 3, 5)
    places = torch.zeros(6, 3)
    places[:, 1], places[:, 2] = torch.arange(6) // 3, torch.arange(6) % 3
    expected = module(
        packed(x),
        encoder_hidden_states=conditioning.tensors["embeds"],
        pooled_projections=conditioning.tensors["pooled"],
        timestep=t / 1000,
        img_ids=places,
        txt_ids=torch.zeros(5, 3),
        guidance=conditioning.scalars[:, 0] if module.config.guidance_embeds else None,
    ).sample
    answer = network.predict(x, t, conditioning)
    torch.testing.assert_close(answer, unpacked(expected, x.shape), atol=1e-5, rtol=1e-4)
