"""Autoencoders of all shapes, as diffusers' pipelines use them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

from shared.errors import Misconfigured
from shared.models.contracts.autoencoder import AutoencoderKind, ImageAutoencoder, VideoAutoencoder
from shared.models.contracts.vae import AutoencoderNetwork

MEAN, DEVIATION = [0.5, -0.25, 1.0, 0.0], [2.0, 0.5, 1.5, 1.0]
PIXELS = torch.rand(2, 3, 32, 16, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0


def image_autoencoder(**numbers: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 8),
        norm_num_groups=4,
        **numbers,
    )


def video_autoencoder() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=MEAN,
        latents_std=DEVIATION,
    )


# Kind, diffusers' own, and what its pipeline does with latents z of the autoencoder.
CASES: dict[str, tuple[AutoencoderKind, Any, Any]] = {
    "sd": (ImageAutoencoder(), image_autoencoder, lambda z: z * 0.18215),
    "flux": (
        ImageAutoencoder(shifts=True),
        lambda: image_autoencoder(scaling_factor=0.36, shift_factor=0.12),
        lambda z: (z - 0.12) * 0.36,
    ),
    "sdxl": (
        ImageAutoencoder(statistics=True),
        lambda: image_autoencoder(scaling_factor=0.5, latents_mean=MEAN, latents_std=DEVIATION),
        lambda z: (z - _channels(MEAN)) * 0.5 / _channels(DEVIATION),
    ),
    "qwen-image": (
        VideoAutoencoder(),
        video_autoencoder,
        lambda z: (z - _channels(MEAN)) / _channels(DEVIATION),
    ),
}


def _image(found: torch.Tensor) -> torch.Tensor:
    """The first frame, if there are any."""
    return found if found.dim() == 4 else found[:, :, 0]


def _channels(numbers: list[float]) -> torch.Tensor:
    return torch.tensor(numbers).view(1, -1, 1, 1)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[AutoencoderNetwork, Any, Any]:
    kind, make, scaled = CASES[request.param]
    torch.manual_seed(3)
    own = make().eval()
    own.save_pretrained(tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    kind.check(config, channels=4, pipeline="Pipeline")
    network = AutoencoderNetwork.load(kind, str(tmp_path), "cpu", torch.float32)
    return network, own, scaled


@torch.inference_mode()
def test_latents_are_what_its_pipeline_makes_of_them(case: Any) -> None:
    network, own, scaled = case
    videos = PIXELS[:, :, None] if isinstance(own, AutoencoderKLQwenImage) else PIXELS
    z = own.encode(videos, return_dict=False)[0].mean
    mean, std = network.encode(PIXELS)
    assert mean.shape == std.shape == (2, 4, 8, 4)
    assert (network.space.channels, network.space.scale) == (4, 4)
    torch.testing.assert_close(mean, scaled(_image(z)), atol=1e-5, rtol=1e-4)
    back = own.decode(z, return_dict=False)[0]
    decoded = network.decode(mean)
    assert decoded.shape == PIXELS.shape
    torch.testing.assert_close(decoded, _image(back), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_wide_one_is_the_same_in_float32(case: Any) -> None:
    network = case[0]
    expected = network.decode(network.encode(PIXELS)[0])
    frames = isinstance(network.module, AutoencoderKLQwenImage)
    narrow = AutoencoderNetwork(network.module.to(torch.bfloat16), network.space, frames)
    assert (narrow.dtype, narrow.wide().dtype) == (torch.bfloat16, torch.float32)
    assert narrow.decode(narrow.encode(PIXELS)[0]).shape == expected.shape


def test_a_video_autoencoder_of_other_channels_is_refused_by_name() -> None:
    config = dict(video_autoencoder().config)
    with pytest.raises(Misconfigured, match="autoencoder is 4, but the network's images have 16"):
        VideoAutoencoder().check(config, 16, "Pipeline")
    with pytest.raises(Misconfigured, match="input_channels is 4; honoured is 3"):
        VideoAutoencoder().check({**config, "input_channels": 4}, 4, "Pipeline")
    with pytest.raises(Misconfigured, match="length of the autoencoder's latents_mean is 1"):
        VideoAutoencoder().check({**config, "latents_mean": [0.0]}, 4, "Pipeline")
