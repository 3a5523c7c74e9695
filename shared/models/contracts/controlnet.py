"""A family's ControlNets behind one contract: a hint is embedded once; then a ControlNet says what
to add to each step, for many images."""

from collections.abc import Sequence
from typing import Protocol

import torch

from shared.models.contracts.network import Conditioning


class ControlNet(Protocol):
    """Images of one call must not influence each other."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the conditioning that it takes, in the order of `Family.conditioning`."""
        ...

    @property
    def scalars(self) -> int:
        """How many of `Family.scalars` it takes, from the first on. Guidance is not among them."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def wide(self) -> "ControlNet":
        """The same in float32, run by the interpreter."""
        ...

    def ask(self) -> None:
        """Take a small step, as it will have to. Raises `NotFinite`, or whatever that does."""
        ...

    def embed(self, hint: torch.Tensor) -> torch.Tensor:
        """hint (1, 3, H, W), RGB from 0 to 1, as (1, C, h, w) for latents (h, w)."""
        ...

    def residuals(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        hint: torch.Tensor,
        scales: torch.Tensor,
    ) -> list[torch.Tensor]:
        """For x (F, C, H, W) at times t (F,), given their conditioning and embedded hints
        (F, C0, H, W): what to add to each of the outputs of the network's encoder half, and last to
        its middle block's, times `scales` (F, number of them)."""
        ...

    def scales(self, rows: Sequence[tuple[float, bool]]) -> torch.Tensor:
        """(F, number of residuals), from (scale, guess mode) of each image."""
        ...
