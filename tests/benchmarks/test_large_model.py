"""The large model for measurements is one that services and diffusers take, with its add-ons."""

from pathlib import Path

import diffusers
import pytest
import torch

from benchmarks.harness.large_model import SMALL, controlnet, large_model, lora_file, parameters
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.loras.read import read_adapter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_model(tmp_path_factory.mktemp("models") / "large", SMALL)


def test_the_catalogue_has_it_with_its_own_size_and_its_controlnet(
    model: Path, tmp_path: Path
) -> None:
    controlnet(tmp_path / "edges", model)
    catalogue = Catalogue.load([str(model)], controls=[str(tmp_path)])
    card = catalogue.default
    assert (card.name, card.default_width, card.max_height) == ("large", 128, 128)
    assert list(catalogue.controls_for("large")) == ["edges"]


@torch.inference_mode()
def test_its_controlnet_has_an_effect(model: Path, tmp_path: Path) -> None:
    control = diffusers.ControlNetModel.from_pretrained(controlnet(tmp_path / "edges", model))
    x, text = torch.randn(1, 4, SMALL.latent_side, SMALL.latent_side), torch.randn(1, 40, 224)
    told = {"text_embeds": torch.randn(1, 128), "time_ids": torch.zeros(1, 6)}
    pixels = 8 * SMALL.latent_side
    pictures = torch.zeros(2, 3, pixels, pixels)
    pictures[1] = 1.0
    plain, other = (
        control(x, 500, text, picture[None], added_cond_kwargs=told).mid_block_res_sample
        for picture in pictures
    )
    assert plain.abs().max() > 0
    assert (plain - other).abs().max() > 1e-3


@pytest.mark.parametrize("nbytes", [400_000, 2_000_000])
def test_a_lora_has_the_size_that_was_asked_for_and_fits(
    model: Path, tmp_path: Path, nbytes: int
) -> None:
    path = tmp_path / "big.safetensors"
    rank = lora_file(path, model, nbytes)
    assert path.stat().st_size == pytest.approx(nbytes, rel=0.2)
    adapter = read_adapter("big", path, family_of(str(model)))
    SdxlUnet.load(str(model)).check(adapter)
    assert {layer.rank for layer in adapter.parts["unet"].values()} == {rank}


def test_parameters_are_counted_without_weights(model: Path) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(model / "unet")
    assert parameters(model) == sum(weight.numel() for weight in unet.parameters())
