"""`python -m tests.shared.models.weights.holder MODEL CONVERTED DTYPE LAYERS...`: a process that
does what it is told, a word a line, and says so by a line: `load` the UNet of a model, `merge` an
adapter for these layers into it, `restore` it, `end`. Afterwards it has read all of its weights."""

import sys
from pathlib import Path

import torch

from shared.host.lean_imports import lean_diffusers
from shared.models.families.sdxl.unet import SdxlUnet
from shared.models.lowrank.weights import Adapter, LowRank
from shared.models.weights.sharing import share_weights


def adapter(network: SdxlUnet, layers: list[str]) -> Adapter:
    drawn = torch.Generator().manual_seed(0)
    parts = {}
    for name in layers:
        outer, inner = network.module.get_submodule(name).weight.shape
        parts[name] = LowRank(
            torch.randn(1, inner, generator=drawn), torch.randn(outer, 1, generator=drawn)
        )
    return Adapter("style", {"unet": parts})


def main(model: str, converted: str, dtype: str, *layers: str) -> None:
    lean_diffusers()
    from diffusers.models.unets import unet_2d_condition  # noqa: F401 (before it is measured)

    share_weights(Path(converted), 1 << 30)
    print("ready", flush=True)
    network: SdxlUnet | None = None
    for line in sys.stdin:
        if (word := line.strip()) == "end":
            return
        if network is None:
            network = SdxlUnet.load(model, getattr(torch, dtype))
        if word == "merge":
            network.merge([(adapter(network, list(layers)), 1.0)])
        elif word == "restore":
            network.merge([])
        for weight in network.module.parameters():
            weight.view(-1)[::512].sum()  # a number of each page
        print("done", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(*sys.argv[1:])
