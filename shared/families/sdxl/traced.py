"""A network written down as a graph once, and run without the interpreter.

A forward of a small batch is some 600 operations of a few microseconds each, and the interpreter
takes as long between them as they take; meanwhile it holds its lock, for which the event loop and
all other rows' news wait. The graph runs the same kernels in the same order, and so gives the same
bits, without either (`shared/torch_graph.py`).
"""

import logging
from collections.abc import Sequence
from typing import Final

import torch

from shared.adapters.adapter import Adapter
from shared.adapters.bank import Bank, Use
from shared.families.network import Conditioning, Control, Network
from shared.families.sdxl.unet import SdxlUnet, steered
from shared.torch_graph import Graph, graph_of

log = logging.getLogger(__name__)

TRIALS: Final = ((2, 2, 2, 77), (3, 2, 2, 77), (3, 2, 2, 154), (1, 4, 2, 154), (5, 2, 6, 77))
"""(images, height, width, tokens) on which the graph has to agree with the network; height and
width in multiples of the smallest latents. It is made from the first one: all that was one number
there is another one in a later one, so that none can have been taken for a constant. The second
and the third run of a graph are slow, because it is optimised then."""


class TracedUnet:
    """Implements `Network`: `network`, but by the graphs of its halves for latents that its levels
    can halve, if there are no adapters. They share their weights, which may be changed in place."""

    def __init__(self, network: SdxlUnet, encode: Graph, decode: Graph) -> None:
        self._network = network
        self._encode, self._decode = encode, decode

    @property
    def device(self) -> torch.device:
        return self._network.device

    @property
    def dtype(self) -> torch.dtype:
        return self._network.dtype

    def predict(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        told: Conditioning,
        bank: Bank | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        height, width = x.shape[-2:]
        halved = height % self._network.smallest == width % self._network.smallest == 0
        if halved and bank is None:
            halfway = self._encode(x, t, *told)
            return self._decode(told.embeds, *steered(halfway, control))  # type: ignore[no-any-return]
        return self._network.predict(x, t, told, bank, control)

    def check(self, adapter: Adapter) -> None:
        self._network.check(adapter)

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        return self._network.bank(images)

    def merge(self, uses: Sequence[Use]) -> None:
        self._network.merge(uses)


def traced(network: SdxlUnet) -> Network:
    """`network` as a graph, if it is on the CPU and the graph gives the same bits on all `TRIALS`;
    else `network` itself."""
    if network.device.type != "cpu":
        return network
    try:
        found = TracedUnet(network, *_graphs(network))
        agrees = all(_agrees(network, found, *trial) for trial in TRIALS)
    except Exception as error:  # whatever it is, the interpreter can do without
        log.warning("the network cannot be traced: %s", error)
        return network
    if not agrees:
        log.warning("the traced network gives other answers; it is run by the interpreter")
        return network
    return found


@torch.inference_mode()
def _graphs(network: SdxlUnet) -> tuple[Graph, Graph]:
    """Of its encoder half, and of its decoder half."""
    x, t, told = network.example(*TRIALS[0])
    halfway = network.encode(x, t, *told)
    return (
        graph_of(network.encode, (x, t, *told)),
        graph_of(network.decode, (told.embeds, *halfway)),
    )


@torch.inference_mode()
def _agrees(network: SdxlUnet, found: TracedUnet, *trial: int) -> bool:
    example = network.example(*trial)
    return torch.equal(found.predict(*example), network.predict(*example))
