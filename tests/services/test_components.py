"""Each model service loads its component only, and computes what the diffusers pipeline does."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from services.vae.autoencoder import Autoencoder
from shared.models.families.sdxl.text import SdxlTextEncoder
from shared.models.families.sdxl.unet import SdxlUnet
from shared.shipped import DEFAULT_MODEL

PROMPTS = ["a large red circle left on white", "a small blue star top on black", ""]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipe = StableDiffusionXLPipeline.from_pretrained(DEFAULT_MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def only(tmp_path: Path, *parts: str) -> str:
    """A copy of the pocket model that lacks everything but `parts`."""
    for part in parts:
        source = Path(DEFAULT_MODEL) / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / part)
        else:
            shutil.copy(source, tmp_path / part)
    return str(tmp_path)


def test_the_prompt_encoder_needs_tokenizers_and_text_encoders_only(
    tmp_path: Path, pipeline: Any
) -> None:
    parts = ("model_index.json", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    encoder = SdxlTextEncoder(only(tmp_path, *parts), "cpu", torch.float32)
    for prompt, encoded in zip(PROMPTS, encoder(PROMPTS), strict=True):
        embeds, _, pooled, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        torch.testing.assert_close(encoded.tensors["embeds"], embeds[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoded.tensors["pooled"], pooled[0], atol=1e-5, rtol=1e-4)


def test_the_vae_service_needs_the_autoencoder_only(tmp_path: Path, pipeline: Any) -> None:
    decoder = Autoencoder(only(tmp_path, "model_index.json", "vae"), "cpu", torch.float32)
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels = decoder.decode(list(latents))
    for item, image in zip(latents, pixels, strict=True):
        scaled = item[None] / pipeline.vae.config.scaling_factor
        with torch.no_grad():
            decoded = pipeline.vae.decode(scaled, return_dict=False)[0]
        expected = pipeline.image_processor.postprocess(decoded, output_type="np")[0]
        difference = torch.from_numpy(expected * 255).round() - image
        assert difference.abs().max() <= 1


def test_an_autoencoder_that_overflows_in_half_precision_is_kept_in_float32(
    tmp_path: Path,
) -> None:
    source = Path(only(tmp_path, "model_index.json", "vae"))
    config = json.loads((source / "vae" / "config.json").read_text())
    for force_upcast, expected in ((True, torch.float32), (False, torch.float16)):
        config["force_upcast"] = force_upcast
        (source / "vae" / "config.json").write_text(json.dumps(config))
        assert Autoencoder(str(source), "cpu", torch.float16).dtype is expected


def test_latents_of_different_shapes_may_be_decoded_together(tmp_path: Path) -> None:
    decoder = Autoencoder(only(tmp_path, "model_index.json", "vae"), "cpu", torch.float32)
    shapes = [(4, 16, 16), (4, 8, 16), (4, 16, 16)]
    pixels = decoder.decode([torch.zeros(shape) for shape in shapes])
    assert [tuple(image.shape) for image in pixels] == [(128, 128, 3), (64, 128, 3), (128, 128, 3)]
    assert all(image.dtype == torch.uint8 for image in pixels)


def test_the_denoiser_needs_the_unet_only(tmp_path: Path, pipeline: Any) -> None:
    unet = SdxlUnet.load(only(tmp_path, "unet"))
    assert unet.in_channels == pipeline.unet.config.in_channels
