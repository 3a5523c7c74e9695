"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685), as networks compute with them.

An adapter adds `scale · up · down` to the weights of some layers of a network."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What an adapter adds to one layer's weights: `up · down`, for a scale of 1.

    `down` (r, in) or (r, in, height, width), `up` (out, r) or (out, r, 1, 1). `bias` (out,): what
    it adds to the layer's bias. `magnitude` (out,): the length that it gives to each output's
    weights, once it has been added (DoRA, Liu et al. 2024, arXiv 2402.09353); `by_input` (in,): to
    each input's, as LyCORIS and OneTrainer may have it."""

    down: torch.Tensor
    up: torch.Tensor
    bias: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None
    by_input: bool = False

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def nbytes(self) -> int:
        tensors = (self.down, self.up, self.bias, self.magnitude)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def fits(self, weight: torch.Tensor) -> bool:
        """Whether it can be added to `weight` (out, in) or (out, in, height, width)."""
        return (
            self.down.shape[1:] == weight.shape[1:]
            and self.up.shape[:2] == (weight.shape[0], self.rank)
            and all(size == 1 for size in self.up.shape[2:])
        )


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """`parts`: by network (see `Family.parts`) and by the name of the layer in it; `left`: tensors
    of its file that have no use here, and why."""

    name: str
    parts: Mapping[str, Mapping[str, LowRank]]
    left: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for part in self.parts.values() for layer in part.values())

    @property
    def said(self) -> set[str]:
        """What a result says of the tensors that are left."""
        return {f"partial_lora {self.name}: {one}" for one in self.left}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(layers)} of {part}" for part, layers in self.parts.items())
        return f"<Adapter {self.name}: layers {sizes}, {self.nbytes / 2**20:.1f} MiB>"
