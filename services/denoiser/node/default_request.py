"""A model's own default request, as far as its denoising network: asked once, before it serves."""

from typing import Final

import torch

from services.denoiser.sampling.model_sampling import Sampling
from shared.errors import Misconfigured, NotFinite
from shared.models.cards import ModelCard
from shared.models.contracts.network import Conditioning, Network

TOKENS: Final = 77
"""Of the prompt; any number does."""


@torch.inference_mode()
def ask_default(network: Network, sampling: Sampling, card: ModelCard) -> None:
    """Take the first step of an image as a request gets it that says nothing. Raises
    `Misconfigured` if its steps cannot be taken with its sampler, or the answer is no image's,
    and `NotFinite`."""
    width, height = card.default_width, card.default_height
    table = sampling.table(card.default_sampler, card.default_steps, width, height)
    family = sampling.family
    zeros = {  # as for a negative prompt that was not given
        name: torch.zeros((TOKENS, width) if family.conditioning[name] == "sequence" else (width,))
        for name, width in family.widths.items()
    }
    scalars = family.scalars(width, height, card.default_guidance)
    conditioning = Conditioning.of_one(zeros, scalars).to(network.device, network.dtype)
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(1, *sampling.latents(width, height), generator=drawn)
    fed = (x * float(table.init_scale) * float(table.c_in[0])).to(network.device, network.dtype)
    t = torch.tensor([float(table.t[0])], device=network.device)
    out = network.predict(fed, t, conditioning)
    if out.shape != fed.shape:
        raise Misconfigured(
            f"the network answers latents of {tuple(fed.shape)} with {tuple(out.shape)}"
        )
    if not bool(out.isfinite().all()):
        raise NotFinite("the denoising network's answer to its default request is not finite")
