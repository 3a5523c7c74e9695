"""Numbers that are not finite never become a picture."""

from pathlib import Path

import pytest
import torch

from services.vae.autoencoder import Autoencoder, Decoded, Posterior
from shared.errors import NotFinite
from tests.helpers.models import SDXL, with_weight

LATENTS = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_without_numbers_is_an_error(tmp_path: Path, value: float) -> None:
    source = with_weight(tmp_path / "d", "vae", "decoder.conv_in.weight", value)
    with pytest.raises(NotFinite, match="image of the latents"):
        Autoencoder(source, "cpu", torch.float32).decode([LATENTS])
    source = with_weight(tmp_path / "e", "vae", "encoder.conv_in.weight", value)
    with pytest.raises(NotFinite, match="latents of the image"):
        Autoencoder(source, "cpu", torch.float32).encode(
            [torch.zeros(64, 64, 3, dtype=torch.uint8)]
        )


def test_latents_without_numbers_spoil_no_other_picture_of_their_batch() -> None:
    autoencoder = Autoencoder(SDXL, "cpu", torch.float32)
    bad = LATENTS.clone()
    bad[0, 0, 0] = float("nan")
    fine, error = autoencoder.decode_each([LATENTS, bad])
    assert isinstance(error, NotFinite)
    assert isinstance(fine, Decoded)
    assert not fine.widened
    [alone] = autoencoder.decode([LATENTS])
    assert (fine.pixels.int() - alone.int()).abs().max() <= 1


def test_what_overflows_in_half_precision_is_computed_again_in_float32() -> None:
    """These weights are as a half can hold them, and what they give is not."""
    half, wide = (Autoencoder(SDXL, "cpu", dtype) for dtype in (torch.float16, torch.float32))
    for autoencoder in (half, wide):
        autoencoder._network.module.encoder.conv_in.weight.data *= 3000.0
        autoencoder._network.module.decoder.conv_in.weight.data *= 3000.0
    assert half.dtype is torch.float16
    [decoded] = half.decode_each([LATENTS * 40.0])
    assert isinstance(decoded, Decoded)
    assert decoded.widened
    [expected] = wide.decode([LATENTS * 40.0])
    assert (decoded.pixels.int() - expected.int()).abs().max() <= 3
    image = torch.full((64, 64, 3), 255, dtype=torch.uint8)
    [encoded] = half.encode_each([image])
    assert isinstance(encoded, Posterior)
    assert encoded.mean.isfinite().all()
