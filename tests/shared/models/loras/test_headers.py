"""What is wrong with a LoRA's file is found in its header, and said before there is a job."""

import json
from typing import Any

import pytest

from shared.errors import AdapterUnusable
from shared.models.contracts.family import Family
from shared.models.files.safetensors_header import (
    MAX_HEADER,
    Header,
    NotSafetensors,
    Shape,
    parse_header,
)
from shared.models.loras.layout import layout
from tests.shared.models.loras.test_dialects import OUT, TO_Q, flux, sdxl


def written(entries: str | dict[str, Any]) -> bytes:
    text = entries if isinstance(entries, str) else json.dumps(entries)
    return len(text.encode()).to_bytes(8, "little") + text.encode()


def tensor(start: int, stop: int, *shape: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_the_tensors_of_a_header_are_known_with_their_types() -> None:
    header = parse_header(written({"b": tensor(8, 12, 2, dtype="F16"), "a": tensor(0, 8, 1, 2)}))
    assert header is not None
    assert header.shapes == {"b": (2,), "a": (1, 2)}
    assert header.kinds == {"b": "F16", "a": "F32"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"version https", "a header of 2336927755350992246 bytes; allowed: 2 to"),
        ((MAX_HEADER + 1).to_bytes(8, "little"), "allowed: 2 to"),
        (bytes(8), "a header of 0 bytes"),
        (written('{"a": 1}'), "not a safetensors file"),
        (written("[]"), "not a safetensors file"),
        (written({"a": tensor(0, 8, -1, -2)}), "not a safetensors file"),
        (written({"a": tensor(0, 7, 2)}), r"a is F32 of \(2,\), and has 7 bytes"),
        (written({"a": tensor(4, 12, 2)}), "do not lie one behind the other, at a"),
        (written({"a": tensor(0, 8, 2), "b": tensor(4, 12, 2)}), "one behind the other, at b"),
        (
            written(f'{{"a": {json.dumps(tensor(0, 8, 2))}, "a": {json.dumps(tensor(8, 16, 2))}}}'),
            "one behind the other, at a",
        ),
    ],
    ids=lambda value: str(value)[-30:],
)
def test_a_header_that_is_not_sound_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(NotSafetensors, match=reason):
        parse_header(data)


TO_K = TO_Q.replace("to_q", "to_k")


def of(shapes: dict[str, Shape], kind: str = "F16", **notes: str) -> Header:
    return Header(shapes, notes, 0, dict.fromkeys(shapes, kind))


def layer(name: str, inputs: int, outputs: int = 320) -> dict[str, Shape]:
    return {f"{name}.lora_A.weight": (4, inputs), f"{name}.lora_B.weight": (outputs, 4)}


CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
FOREIGN: list[tuple[str, dict[str, Shape], str]] = [
    ("unet", layer(f"unet.{CROSS}.to_k", 768), "Stable Diffusion 1"),
    ("unet", layer(f"unet.{CROSS}.to_v", 1024), "Stable Diffusion 2"),
    ("unet", layer(f"unet.{CROSS}.to_k", 1280), "the SDXL refiner"),
    ("transformer", layer(f"unet.{CROSS}.to_k", 2048), "SDXL"),
    (
        "unet",
        {
            f"unet.{CROSS}.processor.to_k_lora.down.weight": (4, 768),
            f"unet.{CROSS}.processor.to_k_lora.up.weight": (320, 4),
        },
        "Stable Diffusion 1",
    ),
    (
        "transformer",
        layer("transformer.transformer_blocks.0.attn.to_q", 1536),
        "Stable Diffusion 3",
    ),
    (
        "transformer",
        layer("transformer.transformer_blocks.0.attn.add_q_proj", 2432),
        "Stable Diffusion 3",
    ),
    ("unet", layer("transformer.transformer_blocks.0.attn.to_q", 3072), "FLUX or Stable"),
    ("transformer", layer("transformer.transformer_blocks.59.attn.to_q", 3072), "Qwen-Image"),
    ("transformer", layer("transformer.transformer_blocks.0.img_mod.1", 3072), "Qwen-Image"),
    ("transformer", layer("double_blocks.19.img_attn.proj", 3072), "HunyuanVideo"),
    ("transformer", layer("double_blocks.0.img_mlp.fc1", 3072), "HunyuanVideo"),
    ("transformer", layer("single_transformer_blocks.0.attn.to_qkv_mlp_proj", 6144), "FLUX.2"),
    ("transformer", layer("distilled_guidance_layer.in_proj", 64), "Chroma"),
    ("transformer", layer("transformer.blocks.0.attn1.to_q", 5120), "Wan"),
    ("unet", layer("diffusion_model.blocks.0.self_attn.q", 5120), "Wan"),
    ("unet", layer("diffusion_model.layers.0.attention.qkv", 2304), "Lumina or Z-Image"),
    ("transformer", layer("transformer.transformer_blocks.0.attn1.to_q", 1152), "PixArt"),
    ("unet", layer("double_stream_blocks.0.block.attn1.to_q", 2560), "HiDream"),
    ("unet", layer("down_blocks.0.motion_modules.0.proj_in", 320), "AnimateDiff"),
]


def own(denoiser: str) -> tuple[Family, dict[str, Shape]]:
    """A family, and a LoRA that fits it."""
    family, name = (sdxl(), TO_Q) if denoiser == "unet" else (flux(), OUT)
    outputs, inputs = family.layers[denoiser][name]
    return family, layer(f"{denoiser}.{name}", inputs, outputs)


@pytest.mark.parametrize(("denoiser", "shapes", "name"), FOREIGN, ids=str)
def test_layers_tell_another_architecture_also_beside_some_that_fit(
    denoiser: str, shapes: dict[str, Shape], name: str
) -> None:
    family, fitting = own(denoiser)
    for file in (shapes, fitting | shapes):
        for partial in (False, True):
            with pytest.raises(AdapterUnusable, match=f"it is a LoRA for {name}.*, and this model"):
                layout("", of(file), family, partial=partial)


NOTES: list[tuple[str, str]] = [
    ("stable-diffusion-xl-v1-base/lora", "SDXL"),
    ("sdxl_base_v1-0", "SDXL"),
    ("stable-diffusion-xl-v1-refiner", "the SDXL refiner"),
    ("flux-1-dev/lora", "FLUX"),
    ("Flux.1", "FLUX"),
    ("flux_kontext", "FLUX"),
    ("flux2_klein", "FLUX.2"),
    ("chroma", "Chroma"),
    ("sd_v1", "Stable Diffusion 1"),
    ("sd_1.5", "Stable Diffusion 1"),
    ("stable-diffusion-v2-768-v", "Stable Diffusion 2"),
    ("sd3m", "Stable Diffusion 3"),
    ("wan2.2_14b", "Wan"),
    ("qwen_image", "Qwen-Image"),
    ("hunyuan-video", "HunyuanVideo"),
    ("z-image-turbo", "Z-Image"),
]


@pytest.mark.parametrize("note", ["modelspec.architecture", "ss_base_model_version"])
@pytest.mark.parametrize(("said", "name"), NOTES)
def test_what_a_file_notes_of_its_architecture_decides_though_all_of_it_fits(
    note: str, said: str, name: str
) -> None:
    for denoiser in ("unet", "transformer"):
        family, fitting = own(denoiser)
        header = Header(fitting, {note: said}, 0)
        if name == family.architecture:
            assert not layout("", header, family).left
            continue
        for partial in (False, True):
            with pytest.raises(AdapterUnusable, match=f"it is a LoRA for {name}, and this model"):
                layout("", header, family, partial=partial)


@pytest.mark.parametrize(
    "notes",
    [
        {"ss_base_model_version": "pony"},
        {"modelspec.architecture": ""},
        {"modelspec.architecture": "sd_v1", "ss_base_model_version": "sdxl_base_v1-0"},
    ],
)
def test_notes_that_nobody_knows_or_that_name_the_models_own_refuse_nothing(
    notes: dict[str, str],
) -> None:
    family, fitting = own("unet")
    assert not layout("", Header(fitting, notes, 0), family).left


@pytest.mark.parametrize("kind", ["I8", "U8", "BOOL", "C64", "F8_E8M0", "F4"])
def test_numbers_that_are_not_read_are_named_by_their_type(kind: str) -> None:
    family, fitting = own("unet")
    alpha = {f"unet.{TO_Q}.alpha": ()}
    with pytest.raises(AdapterUnusable, match=f"its numbers are {kind}; read are BF16"):
        layout("", of(fitting, kind), family, partial=True)
    outputs, inputs = family.layers["unet"][TO_K]
    sound = layer(f"unet.{TO_K}", inputs, outputs)
    kinds = dict.fromkeys(fitting, kind) | dict.fromkeys(sound, "F32") | dict.fromkeys(alpha, "I64")
    header = Header(fitting | alpha | sound, {}, 0, kinds)
    assert set(layout("", header, family, partial=True).left) == {*fitting, *alpha}


@pytest.mark.parametrize("name", ["v1.0", "my.style.v2", "2.5", "weight.x"])
def test_an_adapters_name_may_have_dots(name: str) -> None:
    family, fitting = own("unet")
    named = {key.replace(".weight", f".{name}.weight"): shape for key, shape in fitting.items()}
    [source] = layout("", of(named), family).sources
    assert sorted(source.keys) == ["down", "up"]
