"""FLUX's transformer as a graph; see `shared/models/contracts/traced.py`."""

from collections.abc import Sequence
from typing import Final

import torch

from shared.host.torch_graph import Graph, graph_of
from shared.models.contracts.network import Conditioning, Control, Mode, Network, Partial
from shared.models.contracts.traced import TRIALS, Traced, graph_if_same, trusted
from shared.models.families.flux.pieces import Example, Pieces, pieces
from shared.models.families.flux.transformer import FluxTransformer, given
from shared.models.lowrank.bank import Bank

TOKENS: Final = (9, 12, 70, 9)
"""Numbers of tokens for which a piece's graph has to agree with it; see `TRIALS`."""


class TracedTransformer(Traced[FluxTransformer]):
    """Implements `Network`: `network`, but by the graph of its `answer`, if there is no bank, and
    by those of its `pieces` where tokens are left out."""

    def __init__(self, network: FluxTransformer, answer: Graph, pieces: Pieces) -> None:
        super().__init__(network)
        self._answer, self._pieces = answer, pieces

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        if bank is not None:
            return self._network.predict(x, t, conditioning, bank)
        return self._answer(x, t, *given(conditioning), *self._network.rotary(x, conditioning))  # type: ignore[no-any-return]

    @property
    def depth(self) -> int:
        return self._network.depth

    def partial_tokens(self, mask: torch.Tensor) -> torch.Tensor:
        return self._network.partial_tokens(mask)

    def recorded_bytes(self, tokens: int) -> int:
        return self._network.recorded_bytes(tokens)

    def predict_partly(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        conditioning: Conditioning,
        partials: Sequence[Partial],
        modes: Sequence[Mode],
    ) -> torch.Tensor:
        return self._network.predict_partly(x, t, conditioning, partials, modes, self._pieces)


def traced(network: FluxTransformer) -> Network:
    """`network` as a graph, where that can be trusted."""
    return trusted(network, lambda: _traced(network))


def _traced(network: FluxTransformer) -> TracedTransformer:
    return TracedTransformer(network, _graph(network), pieces(network.module, _piece))


def _piece(function: Graph, example: Example) -> Graph:
    return graph_if_same(function, [example(tokens) for tokens in TOKENS])


@torch.inference_mode()
def _graph(network: FluxTransformer) -> Graph:
    x, t, conditioning = network.example(*TRIALS[0])
    return graph_of(network.answer, (x, t, *given(conditioning), *network.rotary(x, conditioning)))
