from pathlib import Path

import pytest
import torch

from services.denoiser.forward.step import Batch, step
from shared.models.contracts.network import Conditioning, Control
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.lowrank.bank import Bank
from tests.services.denoiser.models import Plain, make_row, make_unet, network


class Counting(Plain):
    """The network, keeping what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        self.calls.append((t, conditioning.tensors["embeds"]))
        return super().predict(x, t, conditioning, bank, control)


def test_a_step_is_one_forward_with_unconditional_halves_of_guided_rows_only() -> None:
    rows = [
        make_row("a", guidance=3.0),
        make_row("b", guidance=1.0, sampler="ddim"),
        make_row("c", guidance=7.0, sampler="dpmpp_2m"),
    ]
    counting = Counting()
    step(counting, Batch.of(rows, counting))
    ((t, embeds),) = counting.calls
    a, b, c = rows
    assert a.uncond is not None
    assert c.uncond is not None
    expected = [a.uncond, c.uncond, a.cond, b.cond, c.cond]
    assert torch.equal(embeds, torch.cat([half.tensors["embeds"] for half in expected]))
    times = [row.table.t[0] for row in (a, c, a, b, c)]
    assert t.tolist() == times


def test_a_step_leaves_its_rows_as_they_are() -> None:
    row = make_row()
    before = row.latents.clone()
    step(network(), Batch.of([row], network()))
    assert row.step == 0
    assert torch.equal(row.latents, before)


def test_only_the_networks_own_folder_is_loaded(tmp_path: Path) -> None:
    make_unet().save_pretrained(tmp_path / "unet")
    loaded = SdxlUnet.load(str(tmp_path))
    rows = [make_row()]
    expected = step(network(), Batch.of(rows, network()))
    assert torch.equal(step(loaded, Batch.of(rows, loaded)).x, expected.x)
    assert (loaded.in_channels, loaded.sample_size) == (4, 8)


def test_weights_that_are_pickled_are_refused(tmp_path: Path) -> None:
    make_unet().save_pretrained(tmp_path / "unet", safe_serialization=False)
    with pytest.raises(OSError, match="safetensors"):
        SdxlUnet.load(str(tmp_path))
