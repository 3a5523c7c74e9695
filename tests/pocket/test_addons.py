"""The shipped LoRAs and ControlNets: standard files that change pictures as they should."""

import json
import random
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from pocket.addons import (
    CONTROLS,
    LORAS,
    PARTS,
    controlled,
    deltas,
    kohya_name,
    linear_layers,
    merge,
)
from pocket.captions import parse
from pocket.hints import HINTS
from pocket.paint import load, paint
from pocket.render import lay_out
from pocket.styles import STYLES
from pocket.verify import read
from pocket.verify_style import measure

CAPTIONS = [
    "a large red circle left and a large blue square right on white",
    "a large green star center on navy",
]
LARGEST_LORA = 2**20  # bytes


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return load()


def style_file(style: str) -> Path:
    return LORAS / f"{style}.safetensors"


@pytest.mark.parametrize("style", list(STYLES))
def test_a_lora_is_small_in_half_precision_and_fits_the_model(
    pipeline: StableDiffusionXLPipeline, style: str
) -> None:
    tensors = load_file(style_file(style))
    assert style_file(style).stat().st_size <= LARGEST_LORA
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    shapes = {name: layer.weight.shape for name, layer in linear_layers(pipeline).items()}
    shapes |= {kohya_name(name): shape for name, shape in shapes.items()}
    found = {name: delta.shape for name, delta in deltas(style_file(style)).items()}
    assert len(found) >= 70
    assert found.items() <= shapes.items()


def test_loras_come_in_both_spellings_and_one_of_them_with_text_encoders() -> None:
    keys = {style: sorted(load_file(style_file(style))) for style in STYLES}
    for style in ("outline", "stripes"):
        assert all(key.startswith("unet.") for key in keys[style])
        assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in keys[style])
    assert {key.split(".")[0] for key in keys["pastel"]} == set(PARTS)
    assert all(key.startswith("lora_unet_") for key in keys["neon"])
    ends = {key.partition(".")[2] for key in keys["neon"]}
    assert ends == {"lora_down.weight", "lora_up.weight", "alpha"}


def test_the_neon_lora_s_alpha_is_not_its_rank_so_that_scaling_matters() -> None:
    tensors = load_file(style_file("neon"))
    ranks = {len(value) for key, value in tensors.items() if key.endswith("lora_down.weight")}
    alphas = {float(value) for key, value in tensors.items() if key.endswith("alpha")}
    assert (ranks, alphas) == ({8}, {4.0})


@pytest.mark.parametrize("style", list(STYLES))
def test_diffusers_own_reader_finds_every_layer_of_a_lora(style: str) -> None:
    weights, alphas = StableDiffusionXLPipeline.lora_state_dict(style_file(style))
    assert len(weights) == 2 * len(deltas(style_file(style)))
    assert {key.split(".")[0] for key in weights} == (set(PARTS) if style == "pastel" else {"unet"})
    assert set((alphas or {}).values()) == ({4.0} if style == "neon" else set())


@pytest.mark.parametrize("style", list(STYLES))
def test_a_lora_merged_into_the_weights_changes_the_pictures_to_its_style(
    pipeline: StableDiffusionXLPipeline, style: str
) -> None:
    scenes = [parse(caption) for caption in CAPTIONS]
    plain = measure(style, scenes, paint(pipeline, CAPTIONS, steps=10, guidance=2.0))
    merge(pipeline, style_file(style))
    styled = measure(style, scenes, paint(pipeline, CAPTIONS, steps=10, guidance=2.0))
    merge(pipeline, style_file(style), -1.0)
    if style == "pastel":
        assert styled < 0.7 * plain
    else:
        assert styled > max(3 * plain, {"outline": 0.5, "stripes": 8.0, "neon": 20.0}[style])


def test_a_layer_that_the_model_lacks_is_named(
    pipeline: StableDiffusionXLPipeline, tmp_path: Path
) -> None:
    down, up = torch.zeros(2, 4), torch.zeros(4, 2)
    path = tmp_path / "other.safetensors"
    save_file({"unet.no.lora_A.weight": down, "unet.no.lora_B.weight": up}, path)
    with pytest.raises(KeyError, match=r"unet\.no"):
        merge(pipeline, path)


@pytest.mark.parametrize("name", list(HINTS))
def test_a_control_is_a_diffusers_directory_that_fits_the_model(
    pipeline: StableDiffusionXLPipeline, name: str
) -> None:
    files = {path.name for path in (CONTROLS / name).iterdir()}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors"}
    control = ControlNetModel.from_pretrained(CONTROLS / name)
    config = json.loads((CONTROLS / name / "config.json").read_text())
    assert config["conditioning_embedding_out_channels"] == [8, 16, 32, 32]
    assert control.config.cross_attention_dim == pipeline.unet.config.cross_attention_dim
    stored = load_file(CONTROLS / name / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


@pytest.mark.parametrize("name", list(HINTS))
def test_a_control_decides_the_places_that_the_caption_leaves_out(
    pipeline: StableDiffusionXLPipeline, name: str
) -> None:
    scene = parse("a large red circle top and a large blue square left on white")
    hint = HINTS[name](lay_out(scene, random.Random(0)))
    caption = "a large red circle and a large blue square on white"
    follower = controlled(pipeline, CONTROLS / name)
    images = paint(follower, [caption] * 2, steps=12, guidance=2.0, hints=[hint] * 2)
    for image in images:
        assert {item.place for item in read(image).items} == {"top", "left"}
