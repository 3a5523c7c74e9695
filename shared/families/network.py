"""A family's denoising network behind one contract, so that a step need not know what it is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from shared.adapters.adapter import Adapter
from shared.adapters.bank import Bank, Use

Residuals = Sequence[torch.Tensor]
"""What ControlNets add halfway: to each of the encoder half's outputs that the decoder half sees,
and last to the middle block's."""
Control = Callable[[], Residuals]
"""Asked when it is needed, which is halfway."""


class Conditioning(NamedTuple):
    """What the network is told of F images."""

    embeds: torch.Tensor
    """(F, L, D): the prompt."""
    pooled: torch.Tensor
    """(F, P): the prompt, in one vector."""
    numbers: torch.Tensor
    """(F, N): see `Family.numbers`."""

    @classmethod
    def join(cls, each: Sequence["Conditioning"]) -> "Conditioning":
        """All their images."""
        return cls(*(torch.cat(tensors) for tensors in zip(*each, strict=True)))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Conditioning":
        return Conditioning(*(tensor.to(device, dtype) for tensor in self))

    def images(self, which: slice) -> "Conditioning":
        return Conditioning(*(tensor[which] for tensor in self))


class Network(Protocol):
    """Predicts what the scheduler config says. Images of one call must not influence each other."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        told: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        """The answer (F, C, H, W) to x (F, C, H, W) at times t (F,), given what it is told, with
        the adapters in `bank` and what `control` answers; there is none if the family has no
        ControlNets."""
        ...

    def check(self, adapter: Adapter) -> None:
        """Raises `AdapterUnusable` if it does not fit."""
        ...

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        """For a batch in which image i has the adapters `images[i]`; see `AdaptedNetwork.bank`."""
        ...

    def merge(self, uses: Sequence[Use]) -> None:
        """Have these adapters in the weights; see `AdaptedNetwork.merge`."""
        ...
