"""Every option of an autoencoder's config that is read is computed as diffusers' pipelines do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from services.vae.autoencoder import Autoencoder
from shared.models.contracts.autoencoder import ImageAutoencoder

OTHERS: dict[str, list[Any]] = {
    "act_fn": ["gelu"],
    "block_out_channels": [(4, 8)],
    "down_block_types": [("DownEncoderBlock2D", "AttnDownEncoderBlock2D")],
    "force_upcast": [False],
    "latent_channels": [16],
    "latents_mean": [(0.5, -0.5, 0.1, 2.0)],
    "latents_std": [(1.5, 0.5, 1.1, 2.0)],
    "layers_per_block": [2],
    "mid_block_add_attention": [False],
    "norm_num_groups": [2],
    "sample_size": [64],
    "scaling_factor": [0.13, -2.0, 1],
    "shift_factor": [0.1, 0.0],
    "up_block_types": [("AttnUpDecoderBlock2D", "UpDecoderBlock2D")],
    "use_post_quant_conv": [False],
    "use_quant_conv": [False],
}
TOGETHER: dict[str, dict[str, Any]] = {
    "latents_mean": {"latents_std": (1.0, 2.0, 3.0, 4.0)},
    "latents_std": {"latents_mean": (0.0, 1.0, 0.0, 1.0)},
}


def test_every_option_that_is_read_is_here() -> None:
    assert set(OTHERS) == ImageAutoencoder.options.read


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OTHERS.items() for value in values]
)
def test_an_autoencoder_is_as_diffusers_has_it(tmp_path: Path, name: str, value: Any) -> None:
    torch.manual_seed(3)
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 4),
        "norm_num_groups": 1,
    }
    vae = AutoencoderKL(**settings | {name: value} | TOGETHER.get(name, {})).eval()
    vae.save_pretrained(tmp_path / "vae")
    # Which of the numbers count is a matter of the pipeline.
    pipeline = "FluxPipeline" if name == "shift_factor" else "StableDiffusionXLPipeline"
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    ours, config = Autoencoder(str(tmp_path), "cpu", torch.float32), vae.config
    latents = torch.randn(1, config.latent_channels, 8, 8)
    mean, std = (
        1.0 * torch.tensor(found or default).view(1, -1, 1, 1)
        for found, default in (
            (config.latents_mean, [config.shift_factor or 0.0]),
            (config.latents_std, [1.0]),
        )
    )
    image = vae.decode(latents * std / config.scaling_factor + mean).sample
    expected = ((image[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255).round()
    [pixels] = ours.decode([latents[0]])
    assert float((pixels - expected).abs().max()) <= 1.0
    [posterior] = ours.encode([pixels])
    found = vae.encode(2.0 * (pixels.permute(2, 0, 1)[None] / 255.0) - 1.0).latent_dist.mean
    wanted = (found - mean) * config.scaling_factor / std
    torch.testing.assert_close(posterior.mean, wanted[0], atol=1e-4, rtol=1e-3)
