"""What was recorded of the images of one call, and what is recorded of them now."""

from collections.abc import Sequence

import torch

from shared.models.contracts.network import Partial
from shared.models.families.flux.packed import Tokens, joined


class Recorded:
    """Of images that have `total` tokens, those of their prompts among them."""

    def __init__(self, partials: Sequence[Partial], total: int) -> None:
        self._partials, self._total = partials, total
        self._recording = [i for i, each in enumerate(partials) if each.record is not None]
        self._renewed = {i: _renewed(partials[i]) for i in self._recording}

    def of(self, image: int, name: str) -> torch.Tensor:
        """(N, D), in any floating dtype."""
        recorded = self._partials[image].recorded
        assert recorded is not None
        return recorded[name]

    def completed(self, name: str, x: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Of all tokens of all images: x (T, D) of `tokens`, and what was recorded as `name`."""
        wholes = []
        for image, part in enumerate(tokens.split(x)):
            if len(part) == self._total:
                wholes.append(part)
                continue
            whole = x.new_empty(self._total, x.shape[1])
            whole[tokens.prompt :] = self.of(image, name)
            whole[tokens.split(tokens.places)[image]] = part
            wholes.append(whole)
        return joined(wholes)

    def record(self, name: str, x: torch.Tensor, tokens: Tokens) -> None:
        """Of x (T, ...), those of `tokens`, what somebody wants to keep: (N, D), as float16."""
        for image in self._recording:
            partial = self._partials[image]
            if not name.startswith(partial.kinds):
                continue
            own = tokens.split(x)[image][tokens.prompt :].flatten(1)
            assert partial.record is not None
            partial.record[name] = self._kept(image, name, own)

    def _kept(self, image: int, name: str, own: torch.Tensor) -> torch.Tensor:
        partial = self._partials[image]
        if partial.masked is None:
            return own.to(torch.float16)
        renewed, rows = self._renewed[image]
        complete = len(own) > len(partial.masked)
        new = own.index_select(0, renewed if complete else rows).to(torch.float16)
        return self.of(image, name).to(new).index_copy(0, renewed, new)


def _renewed(partial: Partial) -> tuple[torch.Tensor, torch.Tensor]:
    """Of an image that has an activation cache, the places of tokens that are renewed, and where
    these are among the masked ones; nothing of an image that has none."""
    if partial.masked is None:
        nothing = torch.empty(0, dtype=torch.int64)
        return nothing, nothing
    assert partial.renewed is not None
    rows = torch.isin(partial.masked, partial.renewed).nonzero()[:, 0]
    return partial.masked[rows], rows
