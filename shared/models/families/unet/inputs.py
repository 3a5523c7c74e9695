"""How a UNet, and the ControlNets beside it, take their conditioning.

Graphs know no names: they are given tensors in an order. First comes the sequence that
cross-attention sees, then the scalars of `Family.scalars`, then whatever else a family has.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from shared.models.contracts.network import Conditioning

PROMPT: Final = "embeds"
"""The sequence that cross-attention sees."""

Draw = Callable[..., torch.Tensor]
"""Numbers of a normal distribution, in a tensor of the sizes that it is given."""


class CrossAttention:
    """Of a network that takes the prompt in cross-attention, and nothing else."""

    names: tuple[str, ...] = (PROMPT,)
    """Of the conditioning that it takes; see `Family.conditioning`."""
    sizes: int = 0
    """How many scalars come before the guidance of a network that takes it."""

    def tensors(self, conditioning: Conditioning) -> tuple[torch.Tensor, ...]:
        """Those that the network is given."""
        return (conditioning.tensors[PROMPT], conditioning.scalars)

    def added(
        self, scalars: torch.Tensor, *others: torch.Tensor
    ) -> Mapping[str, torch.Tensor] | None:
        """`added_cond_kwargs` in diffusers; None: there are none."""
        return None

    def example(
        self, config: Any, images: int, tokens: int, guided: bool, draw: Draw
    ) -> Conditioning:
        """For a network with this config, see `shared.models.contracts.traced.Traceable`; `guided`:
        it takes its guidance as a scalar."""
        prompt = draw(images, tokens, config.cross_attention_dim)
        return Conditioning({PROMPT: prompt}, draw(images, self.sizes + guided).abs() * 1024)
