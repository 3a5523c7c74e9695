"""A family's denoising network behind one contract, so that a step need not know what it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

import torch

from shared.models.lowrank.bank import Bank, Products, Use
from shared.models.lowrank.weights import Adapter
from shared.residency.item import Pieces

Residuals = Sequence[torch.Tensor]
"""What ControlNets add halfway: to each of the encoder half's outputs that the decoder half sees,
and last to the middle block's."""
Control = Callable[[], Residuals]
"""Asked when it is needed, which is halfway."""


class Beside(TypedDict, total=False):
    """What a forward computes with beside what its images are told; see `Network.predict`."""

    bank: Bank
    control: Control


SEQUENCE_DIM: Final = 3
"""Dimensions of the sequences of several images; their vectors have one less."""


class Conditioning(NamedTuple):
    """All that the network takes of F images, but latents and times."""

    tensors: Mapping[str, torch.Tensor]
    """By the names that the family has for them (`Family.conditioning`), and in its order:
    sequences (F, L, D) and vectors (F, D)."""
    scalars: torch.Tensor
    """(F, N): see `Family.scalars`."""

    @classmethod
    def of_one(
        cls, tensors: Mapping[str, torch.Tensor], scalars: Sequence[float]
    ) -> "Conditioning":
        """Of one image: sequences (L, D) and vectors (D,)."""
        return cls({name: one[None] for name, one in tensors.items()}, torch.tensor([scalars]))

    @classmethod
    def join(cls, each: Sequence["Conditioning"]) -> "Conditioning":
        """All their images."""
        return cls(
            {name: torch.cat([one.tensors[name] for one in each]) for name in each[0].tensors},
            torch.cat([one.scalars for one in each]),
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the sequences, in tokens."""
        return tuple(one.shape[1] for one in self.tensors.values() if one.dim() == SEQUENCE_DIM)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Conditioning":
        return self._each(lambda tensor: tensor.to(device, dtype))

    def images(self, which: slice) -> "Conditioning":
        return self._each(lambda tensor: tensor[which])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Conditioning":
        tensors = {name: change(tensor) for name, tensor in self.tensors.items()}
        return Conditioning(tensors, change(self.scalars))


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
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        """The answer (F, C, H, W) to x (F, C, H, W) at times t (F,), given their conditioning, with
        the adapters in `bank` and what `control` answers; there is none if the family has no
        ControlNets."""
        ...

    def check(self, adapter: Adapter) -> None:
        """Raises `AdapterUnusable` if it does not fit."""
        ...

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        """For a batch in which image i has the adapters `images[i]`; see `AdaptedNetwork.bank`."""
        ...

    def product_bytes(self, uses: Sequence[Use]) -> int:
        """Of what `products` gives."""
        ...

    def products(self, uses: Sequence[Use]) -> Pieces[Products]:
        """What these adapters add to the weights, computed beside the steps; see
        `AdaptedNetwork.products`."""
        ...

    def merge(self, uses: Sequence[Use], prepared: Products | None = None) -> None:
        """Have these adapters in the weights; see `AdaptedNetwork.merge`."""
        ...


Mode = Literal["keys_values", "outputs", "full"]
"""How a block computes an image that has an activation cache: with the recorded keys and values of
unmasked tokens; with keys and values projected anew from their recorded inputs; or all of it."""
FULL_FROM: Final = 0.85
"""Share of an image's tokens above which it is better computed in full."""
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """What one image of a call computes.

    `masked` (M,), int64, ascending: its tokens that change; None: all of them. `recorded`: of this
    step, by the names that `record` is given, in any floating dtype; needed if `masked` is there.
    `record`: where to put what can be recorded of it, if its name begins with one of `kinds`. If
    `masked` is there, that is what is `recorded`, but for the tokens in `renewed` (R,), int64,
    some of the masked ones."""

    masked: torch.Tensor | None = None
    recorded: Tensors | None = None
    record: dict[str, torch.Tensor] | None = None
    kinds: tuple[str, ...] = ("key", "value", "output")
    renewed: torch.Tensor | None = None


@runtime_checkable
class MaskedNetwork(Network, Protocol):
    """A network of tokens that can leave out those that do not change; see `Family.masks`."""

    @property
    def depth(self) -> int:
        """Blocks."""
        ...

    def partial_tokens(self, mask: torch.Tensor) -> torch.Tensor:
        """Places (M,), ascending, of the tokens in which some latent position of `mask`
        (1, 1, H, W) is not 0."""
        ...

    def recorded_bytes(self, tokens: int) -> int:
        """Of the keys and values of one image of so many tokens, in half precision."""
        ...

    def predict_partly(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        partials: Sequence[Partial],
        modes: Sequence[Mode],
    ) -> torch.Tensor:
        """As `predict` without adapters, but of each of the F images what its partial says, by the
        mode of each block; zero where tokens are not computed. What is recorded of an image is put
        where its partial says."""
        ...
