"""A network written down as a graph once, and run without the interpreter.

A forward of a small batch is some 600 operations of a few microseconds each, and the interpreter
takes as long between them as they take; meanwhile it holds its lock, for which the event loop and
all other rows' progress waits. The graph runs the same kernels in the same order, and so gives the
same bits, without either (`shared/host/torch_graph.py`).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import torch

from shared.host.torch_graph import Graph, graph_of
from shared.models.contracts.network import Conditioning, Network
from shared.models.lowrank.bank import Bank, Products, Use
from shared.models.lowrank.weights import Adapter
from shared.models.weights.agreements import identity_of, known, remember
from shared.residency.item import Pieces

log = logging.getLogger(__name__)

TRIALS: Final = ((2, 2, 2, 77), (3, 2, 2, 77), (3, 2, 2, 154), (1, 4, 2, 154), (5, 2, 6, 77))
"""(images, height, width, tokens) on which a graph has to agree with its network. It is made from
the first one: all that was one number there is another one in a later one, so that none can have
been taken for a constant. The second and the third run of a graph are slow, because it is optimised
then."""

KNOWN_TRIAL: Final = TRIALS[3]
"""The one that is made if a graph of such a network has agreed on all of them before, on this
host."""

Example = tuple[torch.Tensor, torch.Tensor, Conditioning]


class Traceable(Network, Protocol):
    module: Any
    """Of diffusers, which it runs."""

    def example(self, images: int, height: int, width: int, tokens: int) -> Example:
        """Arguments for `predict`, drawn from a fixed seed: `images` of `height` x `width` times
        the smallest latents that it takes, prompts of so many tokens."""
        ...


N = TypeVar("N", bound=Network)


class Traced(Generic[N]):
    """All of a `Network` but `predict`, as `network` has it. They share their weights, which may be
    changed in place."""

    def __init__(self, network: N) -> None:
        self._network = network

    @property
    def device(self) -> torch.device:
        return self._network.device

    @property
    def dtype(self) -> torch.dtype:
        return self._network.dtype

    def check(self, adapter: Adapter) -> None:
        self._network.check(adapter)

    def bank(self, images: Sequence[Sequence[Use]]) -> Bank | None:
        return self._network.bank(images)

    def product_bytes(self, uses: Sequence[Use]) -> int:
        return self._network.product_bytes(uses)

    def products(self, uses: Sequence[Use]) -> Pieces[Products]:
        return self._network.products(uses)

    def merge(self, uses: Sequence[Use], prepared: Products | None = None) -> None:
        self._network.merge(uses, prepared)


def trusted(network: Traceable, trace: Callable[[], Network]) -> Network:
    """What `trace` makes of `network`, if this is on the CPU and that gives the same bits on all
    `TRIALS`; else `network` itself. What agreed on this host before, weights apart, is tried on
    `KNOWN_TRIAL` alone: trials are most of what a load computes."""
    if network.device.type != "cpu":
        return network
    try:
        found = trace()
        identity = identity_of(network.module, type(network), type(found))
        agreed = known(identity)
        trials = (KNOWN_TRIAL,) if agreed else TRIALS
        agrees = all(_agrees(network, found, *trial) for trial in trials)
    except Exception as error:  # whatever it is, the interpreter can do without
        log.warning("the network cannot be traced: %s", error)
        return network
    if not agrees:
        log.warning("the traced network gives other answers; it is run by the interpreter")
        return network
    if agreed:
        _run(network, found)
    else:
        remember(identity)
    return found


@torch.inference_mode()
def _run(network: Traceable, found: Network) -> None:
    """Once more, for a graph is optimised in its second run."""
    found.predict(*network.example(*KNOWN_TRIAL))


@torch.inference_mode()
def graph_if_same(
    function: Graph, examples: Sequence[tuple[torch.Tensor, ...]], identity: str | None = None
) -> Graph:
    """The graph of `function` as it runs for the first of the `examples`, if it gives the same bits
    for all of them; else `function` itself. It answers with a tensor or several. `identity`: see
    `identity_of`; what agreed before is tried on the last example alone."""
    try:
        graph = graph_of(function, examples[0])
        agreed = identity is not None and known(identity)
        tried = examples[-1:] if agreed else examples
        agrees = all(_same(graph(*example), function(*example)) for example in tried)
    except Exception as error:  # whatever it is, the interpreter can do without
        log.warning("a part of the network cannot be traced: %s", error)
        return function
    if not agrees:
        log.warning("a traced part of the network gives other answers; the interpreter runs it")
        return function
    if identity is not None and not agreed:
        remember(identity)
    return graph


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@torch.inference_mode()
def _agrees(network: Traceable, found: Network, *trial: int) -> bool:
    example = network.example(*trial)
    return torch.equal(found.predict(*example), network.predict(*example))
