"""LoRA files as people have them: each dialect gives the layers that it means, as diffusers reads
it where it can, and no tensor of a file is without effect unless it is named."""

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from shared.errors import AdapterUnusable
from shared.models.contracts.family import Family
from shared.models.families.flux.family import Flux
from shared.models.families.sdxl.family import Sdxl
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.lora_names import sgm_names
from shared.models.files.safetensors_header import Header, Shapes
from shared.models.loras.layout import layout
from shared.models.loras.read import read_adapter
from shared.models.lowrank.bank import AdaptedNetwork
from shared.models.lowrank.weights import Adapter
from tests.helpers.flux import make_transformer
from tests.helpers.loras import biased_of, shapes_of
from tests.services.denoiser.models import make_unet

Tensors = dict[str, torch.Tensor]
RANK = 2
CLIP = {f"encoder.layers.0.self_attn.{name}": (8, 8) for name in ("q_proj", "out_proj")}
T5 = {"encoder.block.0.layer.0.SelfAttention.q": (6, 4)}


class ToySdxl(Sdxl):
    @cached_property
    def layers(self) -> dict[str, Shapes]:
        return {"unet": shapes_of(make_unet()), "text_encoder": CLIP, "text_encoder_2": CLIP}

    @cached_property
    def biased(self) -> dict[str, frozenset[str]]:
        clips = dict.fromkeys(self.text_encoders, frozenset(CLIP))
        return {"unet": biased_of(make_unet()), **clips}


class ToyFlux(Flux):
    @cached_property
    def layers(self) -> dict[str, Shapes]:
        denoiser = shapes_of(make_transformer(guidance_embeds=True))
        return {"transformer": denoiser, "text_encoder": CLIP, "text_encoder_2": T5}


@cache
def sdxl() -> Family:
    return ToySdxl("", make_unet().config)


@cache
def flux() -> Family:
    return ToyFlux("", make_transformer().config)


def pair(*shape: int, rank: int = RANK, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up for weights of this shape."""
    drawn = torch.Generator().manual_seed(seed + sum(shape))
    outputs, *inputs = shape
    up = torch.randn(outputs, rank, *[1] * (len(inputs) - 1), generator=drawn)
    return torch.randn(rank, *inputs, generator=drawn), up


def file(folder: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> Path:
    path = folder / "style.safetensors"
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path, metadata)
    return path


def read(folder: Path, tensors: Mapping[str, torch.Tensor], family: Family, **how: Any) -> Adapter:
    return read_adapter("style", file(folder, tensors), family, **how)


def added(adapter: Adapter) -> Tensors:
    """By `part.layer`, what is added to its weights, flat."""
    return {
        f"{part}.{layer}": low.up.flatten(1) @ low.down.flatten(1)
        for part, layers in adapter.parts.items()
        for layer, low in layers.items()
    }


def same(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-4, rtol=1e-3)


TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
SGM_Q = "input_blocks_3_1_transformer_blocks_0_attn1_to_q"
OUT = "transformer_blocks.0.attn.to_out.0"


def peft(base: str, down: torch.Tensor, up: torch.Tensor, adapter: str = "") -> Tensors:
    name = f".{adapter}" if adapter else ""
    return {f"{base}.lora_A{name}.weight": down, f"{base}.lora_B{name}.weight": up}


def kohya(base: str, down: torch.Tensor, up: torch.Tensor, alpha: Any = None) -> Tensors:
    found = {f"{base}.lora_down.weight": down, f"{base}.lora_up.weight": up}
    return found if alpha is None else found | {f"{base}.alpha": torch.as_tensor(alpha)}


@pytest.mark.parametrize(
    "base",
    [
        f"unet.{TO_Q}",
        f"base_model.model.{TO_Q}",
        f"base_model.model.unet.{TO_Q}",
        f"unet.base_model.model.{TO_Q}",
        f"diffusion_model.{TO_Q}",
        f"model.diffusion_model.{SGM_Q.replace('_', '.')}".replace("input.blocks", "input_blocks"),
        TO_Q,
        f"lora_unet_{TO_Q.replace('.', '_')}",
        f"lora_unet_{SGM_Q}",
        f"lycoris_{TO_Q.replace('.', '_')}",
        SGM_Q,
    ],
)
def test_a_layer_of_the_unet_is_known_under_every_prefix(tmp_path: Path, base: str) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    for tensors in (
        peft(base, down, up),
        peft(base, down, up, "my-style_2"),
        kohya(base, down, up),
    ):
        same(added(read(tmp_path, tensors, sdxl())), {f"unet.{TO_Q}": up @ down})


BFL = "double_blocks.0.img_attn.proj"


@pytest.mark.parametrize(
    "base",
    [
        *(f"{prefix}{OUT}" for prefix in ("transformer.", "", "diffusion_model.", "unet.")),
        *(f"{prefix}{BFL}" for prefix in ("transformer.", "", "diffusion_model.")),
        f"base_model.model.transformer.{OUT}",
        f"transformer.base_model.model.{OUT}",
        f"lora_transformer_{OUT.replace('.', '_')}",
        f"lora_unet_{BFL.replace('.', '_')}",
    ],
)
def test_a_layer_of_flux_is_known_under_every_prefix(tmp_path: Path, base: str) -> None:
    down, up = pair(*flux().layers["transformer"][OUT])
    wanted = {f"transformer.{OUT}": up @ down}
    for tensors in (peft(base, down, up), peft(base, down, up, "x"), kohya(base, down, up, 2.0)):
        same(added(read(tmp_path, tensors, flux())), wanted)


@pytest.mark.parametrize(
    "base",
    [
        "lora_te1_text_model_{}",
        "lora_te_text_model_{}",
        "lora_te1_{}",
        "text_encoder.text_model.{}",
        "text_encoder.{}",
        "base_model.model.text_encoder.text_model.{}",
        "text_encoders.clip_l.transformer.text_model.{}",
    ],
)
def test_a_layer_of_clip_is_known_under_every_prefix(tmp_path: Path, base: str) -> None:
    layer = "encoder.layers.0.self_attn.q_proj"
    shown = layer.replace(".", "_") if base.startswith("lora_") else layer
    down, up = pair(8, 8)
    for family in (sdxl(), flux()):
        found = read(tmp_path, kohya(base.format(shown), down, up), family)
        same(added(found), {f"text_encoder.{layer}": up @ down})


@pytest.mark.parametrize(
    "prefix", ["lora_te2_", "lora_te3_", "text_encoder_2.", "t5xxl.transformer."]
)
def test_t5_is_adapted_too(tmp_path: Path, prefix: str) -> None:
    [(layer, shape)] = T5.items()
    down, up = pair(*shape)
    shown = layer.replace(".", "_") if prefix.startswith("lora_") else layer
    found = read(tmp_path, kohya(f"{prefix}{shown}", down, up), flux())
    same(added(found), {f"text_encoder_2.{layer}": up @ down})


@pytest.mark.parametrize("prefix", ["lora_te3_", "text_encoder_3.", "t5xxl."])
def test_a_text_encoder_that_a_family_does_not_have_is_named(tmp_path: Path, prefix: str) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    tensors = peft(f"unet.{TO_Q}", down, up)
    extra = kohya(f"{prefix}encoder_block_0_layer_0_SelfAttention_q", *pair(6, 4))
    with pytest.raises(AdapterUnusable, match="this model has no text encoder"):
        read(tmp_path, tensors | extra, sdxl())
    found = read(tmp_path, tensors | extra, sdxl(), partial=True)
    same(added(found), {f"unet.{TO_Q}": up @ down})
    assert sorted(one.partition(" ")[0] for one in found.left) == sorted(extra)


@pytest.mark.parametrize(
    "alpha",
    [
        *(1.0, 1, torch.tensor([1.0]), torch.tensor([[1]])),
        *(torch.tensor(1.0).to(kind) for kind in (torch.bfloat16, torch.half, torch.float8_e4m3fn)),
    ],
)
def test_an_alpha_counts_whatever_its_type_and_shape(tmp_path: Path, alpha: Any) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    for base in (f"unet.{TO_Q}", f"lora_unet_{SGM_Q}"):
        same(
            added(read(tmp_path, kohya(base, down, up, alpha), sdxl())),
            {f"unet.{TO_Q}": up @ down / RANK},
        )


@pytest.mark.parametrize("alpha", [torch.zeros(2), torch.tensor(float("nan"))])
def test_an_alpha_that_is_no_number_is_refused(tmp_path: Path, alpha: torch.Tensor) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    with pytest.raises(AdapterUnusable, match="alpha"):
        read(tmp_path, kohya(f"unet.{TO_Q}", down, up, alpha), sdxl())


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path: Path, kind: torch.dtype) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    with pytest.raises(AdapterUnusable, match=r"its numbers are .*; read are BF16"):
        read(tmp_path, peft(f"unet.{TO_Q}", down, up.to(kind)), sdxl())


@pytest.mark.parametrize(
    "kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64]
)
def test_numbers_of_every_size_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    down, up = (tensor.to(kind) for tensor in pair(*sdxl().layers["unet"][TO_Q]))
    found = read(tmp_path, peft(f"unet.{TO_Q}", down, up), sdxl())
    same(added(found), {f"unet.{TO_Q}": up.float() @ down.float()})


@pytest.mark.parametrize(
    ("layer", "of_down", "of_up"),
    [
        ("down_blocks.1.attentions.0.proj_in", (RANK, 16, 1, 1), (16, RANK, 1, 1)),
        ("down_blocks.1.attentions.0.proj_in", (RANK, 16, 1, 1), (16, RANK)),
        ("down_blocks.1.resnets.0.conv_shortcut", (RANK, 8), (16, RANK)),
        ("down_blocks.1.resnets.0.conv_shortcut", (RANK, 8), (16, RANK, 1, 1)),
        ("down_blocks.1.resnets.0.conv1", (RANK, 8, 3, 3), (16, RANK)),
        ("down_blocks.1.resnets.0.conv1", (RANK, 8 * 9), (16, RANK)),
    ],
)
def test_matrices_with_and_without_a_kernel_are_the_same(
    tmp_path: Path, layer: str, of_down: tuple[int, ...], of_up: tuple[int, ...]
) -> None:
    down, up = pair(*sdxl().layers["unet"][layer])
    given = peft(f"unet.{layer}", down.reshape(of_down), up.reshape(of_up))
    found = read(tmp_path, given, sdxl())
    same(added(found), {f"unet.{layer}": up.flatten(1) @ down.flatten(1)})
    AdaptedNetwork("unet", make_unet()).check(found)


SGM = {
    "time_embed_0": "time_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
    "input_blocks_0_0": "conv_in",
    "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
    "input_blocks_2_0_op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks_3_0_emb_layers_1": "down_blocks.1.resnets.0.time_emb_proj",
    "input_blocks_3_0_skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    SGM_Q: TO_Q,
    "middle_block_0_out_layers_3": "mid_block.resnets.0.conv2",
    "middle_block_1_proj_out": "mid_block.attentions.0.proj_out",
    "middle_block_2_in_layers_2": "mid_block.resnets.1.conv1",
    "output_blocks_1_1_transformer_blocks_0_ff_net_2": (
        "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2"
    ),
    "output_blocks_1_2_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_3_0_in_layers_2": "up_blocks.1.resnets.1.conv1",
    "out_2": "conv_out",
}


def test_every_layer_of_the_unet_has_its_sgm_name_beside_that_of_diffusers(tmp_path: Path) -> None:
    known = sdxl().layers["unet"]
    for mixed in (
        dict(SGM),
        SGM | {"mid_block_attentions_0_proj_in": "mid_block.attentions.0.proj_in"},
    ):
        tensors, wanted = Tensors(), Tensors()
        for name, layer in mixed.items():
            down, up = pair(*known[layer])
            tensors |= kohya(f"lora_unet_{name}", down, up)
            wanted[f"unet.{layer}"] = up.flatten(1) @ down.flatten(1)
        same(added(read(tmp_path, tensors, sdxl())), wanted)


def test_projections_that_diffusers_fused_are_taken_apart(tmp_path: Path) -> None:
    known, tensors, wanted = sdxl().layers["unet"], Tensors(), Tensors()
    block = "down_blocks.1.attentions.0.transformer_blocks.0"
    for fused, names in (("attn1.to_qkv", "qkv"), ("attn2.to_kv", "kv")):
        layers = [f"{block}.{fused.split('.')[0]}.to_{name}" for name in names]
        down, up = pair(sum(known[layer][0] for layer in layers), known[layers[0]][1])
        tensors |= peft(f"unet.{block}.{fused}", down, up)
        for layer, part in zip(layers, up.chunk(len(layers)), strict=True):
            wanted[f"unet.{layer}"] = part @ down
    same(added(read(tmp_path, tensors, sdxl())), wanted)


def test_names_of_any_length_are_cut_in_what_is_said(tmp_path: Path) -> None:
    long = {f"{'x' * 100_000}{k}": torch.ones(1) for k in range(3)}
    tensors = peft(f"unet.{TO_Q}", *pair(*sdxl().layers["unet"][TO_Q]))
    with pytest.raises(AdapterUnusable) as caught:
        read(tmp_path, tensors | long, sdxl())
    assert len(caught.value.message) < 1000
    many = {f"odd.{k}": torch.ones(1) for k in range(103)}
    found = read(tmp_path, tensors | many, sdxl(), partial=True)
    assert len(found.said) == 101
    assert "partial_lora style: and 3 more" in found.said


def bfl() -> tuple[Tensors, Tensors]:
    """A file in Black Forest Labs' names for every kind of layer, and what it adds."""
    known, tensors, wanted = flux().layers["transformer"], Tensors(), Tensors()
    double, single = "transformer_blocks.0", "single_transformer_blocks.1"
    image, text = (
        [f"{double}.attn.{name}" for name in names]
        for names in (("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"))
    )
    linear1 = [f"{single}.attn.{name}" for name in ("to_q", "to_k", "to_v")] + [
        f"{single}.proj_mlp"
    ]
    for name, layers in {
        "double_blocks_0_img_attn_qkv": image,
        "double_blocks_0_txt_attn_qkv": text,
        "double_blocks_0_txt_attn_proj": [f"{double}.attn.to_add_out"],
        "double_blocks_0_img_mlp_0": [f"{double}.ff.net.0.proj"],
        "double_blocks_0_txt_mlp_2": [f"{double}.ff_context.net.2"],
        "double_blocks_0_img_mod_lin": [f"{double}.norm1.linear"],
        "single_blocks_1_linear1": linear1,
        "single_blocks_1_linear2": [f"{single}.proj_out"],
        "single_blocks_1_modulation_lin": [f"{single}.norm.linear"],
    }.items():
        outputs = [known[layer][0] for layer in layers]
        down, up = pair(sum(outputs), *known[layers[0]][1:])
        tensors |= kohya(f"lora_unet_{name}", down, up, 1.0)
        for layer, part in zip(layers, torch.split(up, outputs), strict=True):
            wanted[f"transformer.{layer}"] = part @ down / RANK
    return tensors, wanted


def test_fused_layers_of_flux_are_taken_apart(tmp_path: Path) -> None:
    tensors, wanted = bfl()
    same(added(read(tmp_path, tensors, flux())), wanted)
    # diffusers takes linear1 apart by the sizes of the published models alone.
    file(tmp_path, {key: value for key, value in tensors.items() if "linear1" not in key})
    single = ("to_q", "to_k", "to_v", "proj_mlp")
    rest = {k: v for k, v in wanted.items() if "single" not in k or not k.endswith(single)}
    same(with_diffusers_flux(tmp_path), rest)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("img_in", "x_embedder"),
        ("txt_in", "context_embedder"),
        ("time_in_out_layer", "time_text_embed.timestep_embedder.linear_2"),
        ("vector_in_in_layer", "time_text_embed.text_embedder.linear_1"),
        ("guidance_in_in_layer", "time_text_embed.guidance_embedder.linear_1"),
        ("final_layer_linear", "proj_out"),
        ("final_layer_adaLN_modulation_1", "norm_out.linear"),
    ],
)
def test_layers_of_flux_outside_its_blocks_are_used(tmp_path: Path, theirs: str, ours: str) -> None:
    down, up = pair(*flux().layers["transformer"][ours])
    found = read(tmp_path, kohya(f"lora_unet_{theirs}", down, up), flux())
    halves = up.chunk(2)
    up = torch.cat(halves[::-1]) if ours == "norm_out.linear" else up  # as diffusers converts it
    same(added(found), {f"transformer.{ours}": up @ down})


def test_xlabs_names_its_streams_by_number(tmp_path: Path) -> None:
    known, tensors, wanted = flux().layers["transformer"], Tensors(), Tensors()
    for place, layers in {
        "double_blocks.0.processor.qkv_lora1": ["attn.to_q", "attn.to_k", "attn.to_v"],
        "double_blocks.0.processor.proj_lora2": ["attn.to_add_out"],
    }.items():
        names = [f"transformer_blocks.0.{layer}" for layer in layers]
        down, up = pair(sum(known[name][0] for name in names), known[names[0]][1])
        tensors |= {f"{place}.down.weight": down, f"{place}.up.weight": up}
        for name, part in zip(names, up.chunk(len(names)), strict=True):
            wanted[f"transformer.{name}"] = part @ down
    same(added(read(tmp_path, tensors, flux())), wanted)
    same(with_diffusers_flux(tmp_path), wanted)


def with_diffusers_flux(folder: Path) -> Tensors:
    from diffusers.loaders.lora_pipeline import FluxLoraLoaderMixin as Loader

    state, alphas = Loader.lora_state_dict(
        str(folder), weight_name="style.safetensors", return_alphas=True
    )
    transformer = make_transformer(guidance_embeds=True)
    Loader.load_lora_into_transformer(state, alphas, transformer, adapter_name="style")
    return deltas("transformer", transformer)


def deltas(part: str, network: nn.Module) -> Tensors:
    from peft.tuners.lora import LoraLayer

    return {
        f"{part}.{name}": layer.get_delta_weight("style").flatten(1).detach()  # type: ignore[attr-defined]
        for name, layer in network.named_modules()
        if isinstance(layer, LoraLayer)
    }


@pytest.mark.parametrize(
    "name", ["default", "a1", "b2", "weight", "alpha", "diff", "my style", "0"]
)
def test_an_adapter_may_have_any_name(tmp_path: Path, name: str) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    same(
        added(read(tmp_path, peft(f"base_model.model.{TO_Q}", down, up, name), sdxl())),
        {f"unet.{TO_Q}": up @ down},
    )


BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
SELF = "text_model.encoder.layers.0.self_attn"


@pytest.mark.parametrize(
    ("place", "layer"),
    [
        (f"unet.{BLOCK}.attn1.processor.to_q_lora", f"unet.{BLOCK}.attn1.to_q"),
        (f"{BLOCK}.attn2.processor.to_out_lora", f"unet.{BLOCK}.attn2.to_out.0"),
        (f"unet.{BLOCK}.attn1.to_v.lora", f"unet.{BLOCK}.attn1.to_v"),
        (f"unet.{BLOCK}.attn1.to_k.lora_linear_layer", f"unet.{BLOCK}.attn1.to_k"),
        (f"text_encoder.{SELF}.to_q_lora", f"text_encoder.{SELF[11:]}.q_proj"),
        (f"text_encoder.{SELF}.to_out_lora", f"text_encoder.{SELF[11:]}.out_proj"),
        (f"text_encoder_2.{SELF}.q_proj.lora_linear_layer", f"text_encoder_2.{SELF[11:]}.q_proj"),
    ],
)
def test_older_forms_of_diffusers_are_read(tmp_path: Path, place: str, layer: str) -> None:
    part, _, name = layer.partition(".")
    down, up = pair(*sdxl().layers[part][name])
    found = read(tmp_path, {f"{place}.down.weight": down, f"{place}.up.weight": up}, sdxl())
    same(added(found), {layer: up @ down})


UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"),
    "LoKr": ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"),
    "Tucker": ("lora_down.weight", "lora_mid.weight", "lora_up.weight", "alpha"),
    "OFT": ("oft_blocks",),
    "IA3": ("on_input", "weight"),
    "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"),
    "bias of the first": ("lora_A.weight", "lora_A.bias", "lora_B.weight"),
    "whole weights": ("diff", "diff_b"),
}


@pytest.mark.parametrize("method", UNSUPPORTED)
def test_other_methods_are_refused_by_name_and_left_whole(tmp_path: Path, method: str) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    good = kohya(f"lora_unet_{SGM_Q}", down, up)
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    bad = {f"{layer}.{name}": torch.ones(2, 2) for name in UNSUPPORTED[method]}
    with pytest.raises(AdapterUnusable, match=method):
        read(tmp_path, bad, sdxl(), partial=True)
    with pytest.raises(
        AdapterUnusable, match=f"{len(bad)} of its {len(bad) + 2} tensors.*{method}"
    ):
        read(tmp_path, good | bad, sdxl())
    found = read(tmp_path, good | bad, sdxl(), partial=True)
    same(added(found), {f"unet.{TO_Q}": up @ down})
    assert sorted(one.partition(" ")[0] for one in found.left) == sorted(bad)
    assert all(one.startswith("partial_lora style: lora_unet_mid_block") for one in found.said)


def test_two_tensors_for_one_matrix_are_refused(tmp_path: Path) -> None:
    down, up = pair(*sdxl().layers["unet"][TO_Q])
    twice = peft(f"unet.{TO_Q}", down, up, "one") | peft(f"unet.{TO_Q}", down, up, "two")
    with pytest.raises(AdapterUnusable, match=r"lora_A\.one.* and .*lora_A\.two.* both the down"):
        read(tmp_path, twice, sdxl(), partial=True)
    twice = kohya(f"lora_unet_{SGM_Q}", down, up) | peft(f"unet.{TO_Q}", down, up)
    with pytest.raises(AdapterUnusable, match="for the same layer"):
        read(tmp_path, twice, sdxl(), partial=True)


def contents(adapter: Adapter) -> Tensors:
    """All that an adapter adds, under names."""
    return {
        f"{part}.{layer}.{what}": getattr(low, what)
        for part, layers in adapter.parts.items()
        for layer, low in layers.items()
        for what in ("down", "up", "bias", "magnitude")
        if getattr(low, what) is not None
    }


def with_everything() -> Tensors:
    known = sdxl().layers["unet"]
    down, up = pair(*known[TO_Q])
    conv_in = pair(*known["conv_in"])
    shortcut = pair(*known["down_blocks.1.resnets.0.conv_shortcut"])
    return {
        **kohya(f"lora_unet_{SGM_Q}", down, up, 1.0),
        f"lora_unet_{SGM_Q}.dora_scale": torch.rand(len(up), 1) + 0.5,
        **peft("unet.conv_in", *conv_in, "style"),
        "unet.conv_in.lora_B.style.bias": torch.rand(len(conv_in[1])),
        **kohya("lora_unet_input_blocks_3_0_skip_connection", *shortcut, 3),
        "lora_unet_input_blocks_3_0_skip_connection.diff_b": torch.rand(len(shortcut[1])),
        **kohya("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", *pair(8, 8), 1.0),
        **peft("text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj", *pair(8, 8)),
    }


@pytest.mark.parametrize("build", [with_everything, lambda: bfl()[0]], ids=["sdxl", "flux"])
def test_no_tensor_can_be_taken_away_unnoticed(
    tmp_path: Path, build: Callable[[], Tensors]
) -> None:
    tensors = build()
    family = sdxl() if build is with_everything else flux()
    whole = contents(read(tmp_path, tensors, family))
    for key in tensors:
        rest = {name: tensor for name, tensor in tensors.items() if name != key}
        try:
            found = contents(read(tmp_path, rest, family))
        except AdapterUnusable:
            continue
        same_keys = found.keys() == whole.keys()
        assert not (same_keys and all(torch.equal(found[k], whole[k]) for k in whole)), key


@torch.inference_mode()
def test_every_tensor_for_the_unet_changes_what_it_predicts(tmp_path: Path) -> None:
    tensors = {
        key: value
        for key, value in with_everything().items()
        if key[:7] not in ("lora_te", "text_en")
    }
    unet = SdxlUnet(make_unet())
    example = unet.example(1, 2, 2, 5)

    def predicted(given: Tensors) -> torch.Tensor:
        adapter = read(tmp_path, given, sdxl())
        return unet.predict(*example, unet.bank([[(adapter, 1.0)]]))

    whole = predicted(tensors)
    assert not torch.allclose(whole, unet.predict(*example), atol=1e-3)
    for key in tensors:
        try:
            found = predicted({name: tensor for name, tensor in tensors.items() if name != key})
        except AdapterUnusable:
            continue
        assert not torch.allclose(found, whole, atol=1e-5), key


def test_flux_at_its_full_width_is_as_diffusers_converts_it(tmp_path: Path) -> None:
    """For which it has sizes written down. The matrices are seen through a random input."""
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.lora_pipeline import FluxLoraLoaderMixin as Loader

    with torch.device("meta"):
        shapes = shapes_of(FluxTransformer2DModel(num_layers=1, num_single_layers=1))

    class FullFlux(Flux):
        layers = {"transformer": shapes, "text_encoder": {}, "text_encoder_2": {}}  # noqa: RUF012

    tensors: Tensors = {}
    for name, (out, into) in {
        "double_blocks_0_img_attn_qkv": (9216, 3072),
        "double_blocks_0_txt_mod_lin": (18432, 3072),
        "single_blocks_0_linear1": (21504, 3072),
        "single_blocks_0_linear2": (3072, 15360),
        "final_layer_adaLN_modulation_1": (6144, 3072),
        "time_in_in_layer": (3072, 256),
        "vector_in_out_layer": (3072, 3072),
        "txt_in": (3072, 4096),
    }.items():
        # diffusers forgets the alphas of the final layer.
        alpha = None if "final" in name else 1.0
        tensors |= kohya(f"lora_unet_{name}", *pair(out, into), alpha)
    ours = read(tmp_path, tensors, FullFlux("", {})).parts["transformer"]
    state, alphas = Loader.lora_state_dict(
        str(tmp_path), weight_name="style.safetensors", return_alphas=True
    )
    assert not alphas
    state = {key.removeprefix("transformer."): tensor for key, tensor in state.items()}
    assert ours.keys() == {key.rsplit(".lora_", 1)[0] for key in state}
    for layer, low in ours.items():
        x = torch.randn(low.down.shape[1])
        expected = state[f"{layer}.lora_B.weight"] @ (state[f"{layer}.lora_A.weight"] @ x)
        torch.testing.assert_close(low.up @ (low.down @ x), expected, atol=1e-3, rtol=1e-3)


FULL_SGM = {
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.4.1.proj_in": "down_blocks.1.attentions.0.proj_in",
    "input_blocks.7.0.skip_connection": "down_blocks.2.resnets.0.conv_shortcut",
    "input_blocks.8.1.transformer_blocks.9.attn2.to_k": (
        "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k"
    ),
    "middle_block.1.transformer_blocks.9.ff.net.0.proj": (
        "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj"
    ),
    "output_blocks.2.1.transformer_blocks.0.attn1.to_out.0": (
        "up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_out.0"
    ),
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.2.conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks.8.0.in_layers.2": "up_blocks.2.resnets.2.conv1",
    "label_emb.0.0": "add_embedding.linear_1",
}


def test_sdxl_at_its_full_size_has_the_published_names() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            use_linear_projection=True,
        )
    shapes = shapes_of(unet)
    names = sgm_names(shapes)
    assert {name: names[name][0].layer for name in FULL_SGM} == FULL_SGM
    assert {piece.layer for pieces in names.values() for piece in pieces} == set(shapes)
    block = "mid_block.attentions.0.transformer_blocks.0"
    assert f"{block}.attn1.to_qkv" in names
    assert f"{block}.attn2.to_kv" in names
    assert f"{block}.attn2.to_qkv" not in names  # its inputs are not those of the others


FRAGMENTS = (
    *("unet", "transformer", "lora_unet_", "lora_te1_", "base_model.model", "text_encoder_3", ""),
    *(TO_Q, SGM_Q, "conv_in", OUT, BFL, "text_model.encoder.layers.0.self_attn.q_proj", "\n"),
    *("lora_A", "lora_B.style", "lora_down", "lora_up", "alpha", "weight", "bias", "dora_scale"),
    *("lora_magnitude_vector", "diff_b", "lora_mid", "hada_w1_a", "processor", "qkv_lora1", "."),
)
KEYS = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5).map(".".join)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 8, 16, 32]), max_size=4).map(tuple)


@settings(max_examples=30, deadline=None)
@given(shapes=st.dictionaries(KEYS, SHAPES, max_size=6), partial=st.booleans())
def test_every_tensor_of_whatever_file_is_placed_or_named(
    shapes: dict[str, tuple[int, ...]], partial: bool
) -> None:
    for family in (sdxl(), flux()):
        try:
            found = layout("style", Header(shapes, {}, 0), family, partial=partial)
        except AdapterUnusable:
            continue
        used = [key for source in found.sources for key in source.keys.values()]
        assert sorted([*used, *found.left]) == sorted(shapes)
        assert partial or not found.left
