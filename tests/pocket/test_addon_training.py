"""What trains the add-ons: files mean what was trained, and training starts from no change."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pocket.addons import kohya_name, merge
from pocket.captions import vague
from pocket.render import lay_out
from pocket.scenes import PLACES, SIZES, held_out_scenes
from pocket.train.sdxl.adapters import Adapters, Lora, targets, write_lora
from pocket.train.sdxl.controls import EMBEDDING, build_control, guided, hints_of
from pocket.train.sdxl.text import build_text
from pocket.train.sdxl.unet import TIME_IDS, build_unet


def untrained(seed: int = 0) -> SimpleNamespace:
    """The parts of a pipeline, small and equal for equal seeds."""
    torch.manual_seed(seed)
    text = build_text()
    return SimpleNamespace(
        unet=build_unet().requires_grad_(False), text_encoder=text.first, text_encoder_2=text.second
    )


def inputs() -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """One row for a UNet: latents, timestep and hidden states; its added conditioning."""
    torch.manual_seed(1)
    x, hidden, pooled = torch.randn(1, 4, 16, 16), torch.randn(1, 40, 224), torch.randn(1, 128)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([TIME_IDS])}
    return (x, torch.tensor([500]), hidden), added


def painted(unet: object) -> torch.Tensor:
    rows, added = inputs()
    with torch.no_grad():
        return unet(*rows, added_cond_kwargs=added).sample  # type: ignore[operator, no-any-return]


def adapted(alpha: float) -> tuple[SimpleNamespace, Adapters]:
    parts = untrained()
    layers = targets(parts, with_text=True)
    adapters = Adapters(layers, rank=4, alpha=alpha)
    adapters.attach(layers)
    return parts, adapters


def test_a_lora_changes_nothing_before_it_is_trained() -> None:
    parts, _ = adapted(alpha=4)
    assert torch.equal(painted(parts.unet), painted(untrained().unet))


@pytest.mark.parametrize("kohya", [False, True])
def test_a_written_lora_merged_by_hand_does_what_was_trained(tmp_path: Path, kohya: bool) -> None:
    alpha = 2 if kohya else 4  # diffusers' files hold no alpha: it is the rank
    parts, adapters = adapted(alpha)
    for lora in adapters.loras:
        assert isinstance(lora, Lora)
        torch.nn.init.normal_(lora.up.weight, std=0.1)
    write_lora(tmp_path / "a.safetensors", adapters, kohya)
    fresh = untrained()
    before = painted(fresh.unet)
    merge(fresh, tmp_path / "a.safetensors")
    trained = painted(parts.unet)
    assert (painted(fresh.unet) - trained).norm() < 0.05 * (before - trained).norm()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_without_text_only_the_unet_s_attention_and_feed_forward_are_adapted() -> None:
    parts = untrained()
    names = set(targets(parts, with_text=False))
    assert len(names) == 7 * (2 * 4 + 2)
    assert {name.split(".")[0] for name in names} == {"unet"}
    text = set(targets(parts, with_text=True)) - names
    assert len(text) == 2 * 4 * 4
    assert all(".text_model.encoder.layers." in name for name in text)


def test_kohya_s_names_join_with_underscores_and_number_the_text_encoders() -> None:
    assert kohya_name("unet.mid_block.attentions.0.to_q") == "lora_unet_mid_block_attentions_0_to_q"
    assert kohya_name("text_encoder.text_model.a") == "lora_te1_text_model_a"
    assert kohya_name("text_encoder_2.text_model.a") == "lora_te2_text_model_a"


def test_a_control_changes_nothing_before_it_is_trained_and_halves_thrice() -> None:
    parts = untrained()
    control = build_control(parts.unet)
    rows, added = inputs()
    with torch.no_grad():
        forward = guided(parts.unet, control, torch.rand(1, 3, 128, 128))
        assert torch.equal(forward(*rows, added).sample, painted(parts.unet))
    assert 2 ** (len(EMBEDDING) - 1) == 8


def test_hints_are_stacked_with_channels_first() -> None:
    layouts = [lay_out(scene, random.Random(0)) for scene in held_out_scenes(2)]
    assert tuple(hints_of("edges", layouts).shape) == (2, 3, 128, 128)


def test_vague_captions_name_no_place_and_only_sometimes_a_size() -> None:
    rng, scene = random.Random(0), held_out_scenes(3)[2]
    words = [set(vague(scene, rng).replace(",", "").split()) for _ in range(200)]
    assert not any(said & {*PLACES, "middle", "centre"} for said in words)
    sized = sum(bool(said & {*SIZES, "big", "huge", "little", "tiny"}) for said in words)
    assert 60 < sized < 140
