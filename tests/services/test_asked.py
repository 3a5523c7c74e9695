"""Each service asks the models it loads for their own default request; what cannot be drawn is
listed, and keeps nobody from the others."""

from pathlib import Path

import pytest
import torch

from services.denoiser.node.default_request import ask_default
from services.denoiser.sampling.model_sampling import Sampling
from services.prompt_encoder.checked_loading import load_checked
from services.vae.service import load
from shared.errors import InvalidRequest, Misconfigured, NotFinite
from shared.models.cards import read_card
from shared.models.contracts.network import Network
from shared.models.families.flux.transformer import FluxTransformer
from shared.models.families.registry import family_of
from shared.models.families.sdxl.unet import SdxlControlNet, SdxlUnet
from shared.shipped import MODELS
from tests.helpers.controls import control, make_control
from tests.helpers.models import SDXL, copied, with_weight


def untraced(source: str) -> Network:
    """The network of a model, without the time that its graph takes."""
    kind = FluxTransformer if family_of(source).denoiser == "transformer" else SdxlUnet
    network: Network = kind.load(source)
    return network


@pytest.mark.parametrize("source", MODELS.values(), ids=MODELS)
def test_models_that_ship_can_draw_their_default_request(source: str) -> None:
    card, family = read_card(source), family_of(source)
    ask_default(untraced(source), Sampling.of(family), card)
    load_checked(family, "cpu", torch.float32)
    load(card, "cpu", "float32")


def test_a_network_without_numbers_is_found(tmp_path: Path) -> None:
    source = with_weight(tmp_path / "m", "unet", "conv_in.weight", float("nan"))
    family = family_of(source)
    with pytest.raises(NotFinite, match="denoising network"):
        ask_default(untraced(source), Sampling.of(family), read_card(source))


def test_an_autoencoder_without_numbers_is_found(tmp_path: Path) -> None:
    bad = with_weight(tmp_path / "bad", "vae", "decoder.conv_in.weight", float("inf"))
    load(read_card(SDXL), "cpu", "float32")
    with pytest.raises(NotFinite, match="not finite"):
        load(read_card(bad), "cpu", "float32")


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        ("text_encoder", "encoder.layers.0.layer_norm1.weight"),
        ("text_encoder_2", "text_model.final_layer_norm.weight"),
    ],
)
def test_text_encoders_without_numbers_are_found(tmp_path: Path, folder: str, key: str) -> None:
    source = with_weight(tmp_path / "m", folder, key, float("nan"))
    with pytest.raises(NotFinite, match="text encoders"):
        load_checked(family_of(source), "cpu", torch.float32)


def test_a_controlnet_without_numbers_is_found() -> None:
    control("edges").ask()
    bad = make_control("edges")
    bad.conv_in.weight.data.view(-1)[0] = torch.nan
    with pytest.raises(NotFinite, match="adds to a step"):
        SdxlControlNet(bad).ask()


def test_weights_that_are_no_weights_are_named(tmp_path: Path) -> None:
    source = copied(tmp_path / "m")
    with pytest.raises(Misconfigured, match=r"the weights of text_encoder lack embeddings"):
        load_checked(family_of(source), "cpu", torch.float32)


def test_a_step_that_the_networks_default_sampler_cannot_take_is_found(tmp_path: Path) -> None:
    settings = {"darkroom.json": {"steps": 60, "sampler": "lcm"}}
    source = copied(tmp_path / "m", settings, weights=True)
    family = family_of(source)
    with pytest.raises(InvalidRequest, match="steps: 60 is not allowed; allowed: 1 to 50"):
        ask_default(untraced(source), Sampling.of(family), read_card(source))
