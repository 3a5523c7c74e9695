"""Merging adapters copies only the pages that it changes; without them they are the file's."""

from pathlib import Path

import pytest
import torch

from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.families.unet.traced import traced
from shared.models.lowrank.bank import AdaptedNetwork
from shared.models.lowrank.weights import Adapter, LowRank
from shared.models.weights.pages import FilePages
from tests.services.denoiser.models import make_unet

LAYERS = ("conv_out", "mid_block.attentions.0.proj_in", "time_embedding.linear_1")


def adapter(network: SdxlUnet, name: str = "style", rank: int = 2) -> Adapter:
    """With a bias and a magnitude for one layer each."""
    drawn = torch.Generator().manual_seed(rank)
    parts = {}
    for number, name_of in enumerate(LAYERS):
        weight = network.module.get_submodule(name_of).weight
        outer, *inner = weight.shape
        parts[name_of] = LowRank(
            torch.randn(rank, *inner, generator=drawn),
            torch.randn(outer, rank, *(1 for _ in inner[1:]), generator=drawn),
            bias=torch.ones(outer) if number == 0 else None,
            magnitude=torch.ones(outer) if number == 1 else None,
        )
    return Adapter(name, {"unet": parts})


@pytest.mark.linux
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_merged_weights_are_what_they_were_in_memory_of_ones_own_and_go_back(
    tmp_path: Path, converted: Path, dtype: torch.dtype
) -> None:
    make_unet().save_pretrained(tmp_path / "unet")
    network = SdxlUnet.load(str(tmp_path), dtype)
    style = adapter(network)
    own = make_unet().to(dtype).requires_grad_(False)
    expected = AdaptedNetwork("unet", own)
    run, example = traced(network), network.example(2, 2, 2, 77)
    plain = run.predict(*example)
    before = {name: weight.clone() for name, weight in network.module.state_dict().items()}
    for _ in range(2):
        network.merge([(style, 0.5)])
        expected.merge([(style, 0.5)])
        for name, weight in network.module.state_dict().items():
            assert torch.equal(weight, own.state_dict()[name]), name
        assert not torch.equal(run.predict(*example), plain)
        network.merge([])
        expected.merge([])
        for name, weight in network.module.state_dict().items():
            assert torch.equal(weight, before[name]), name
        assert torch.equal(run.predict(*example), plain)
    assert FilePages.mapped().private_bytes(network.module.state_dict().values()) == 0
