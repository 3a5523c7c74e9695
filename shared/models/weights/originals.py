"""What weights were before something was merged into them."""

import torch

from shared.models.weights.pages import FilePages, give_back


class Originals:
    """Weights that are changed in place, and can be brought back bit for bit. Those on pages of a
    file are not copied beforehand: the file has them."""

    def __init__(self) -> None:
        self._mapped: list[torch.Tensor] = []
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __repr__(self) -> str:
        return f"<Originals of {len(self._mapped)} mapped weights, {len(self._copies)} copies>"

    def keep(self, weight: torch.Tensor, pages: FilePages) -> None:
        """To be called before `weight` is changed."""
        if pages.hold(weight):
            self._mapped.append(weight)
        else:
            self._copies.append((weight, weight.clone()))

    @torch.no_grad()
    def restore(self) -> None:
        """All weights that were kept are what they were then."""
        give_back(self._mapped)
        self._mapped.clear()
        for weight, original in self._copies:
            weight.copy_(original)
        self._copies.clear()
