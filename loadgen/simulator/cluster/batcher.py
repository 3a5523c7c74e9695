"""A process that encodes prompts or decodes pictures: what waits while it computes is its next
batch (`shared/worker/batched_compute.py`)."""

from collections import deque
from collections.abc import Callable
from typing import Final

from loadgen.simulator.cluster.queue import Node, Place
from shared.policy.reported_load import LAST

CAPACITY: Final = 8
"""Nodes in hand (`services/prompt_encoder`, `services/vae`)."""

Units = Callable[[Node], float]


class Batcher:
    def __init__(self, place: Place, units: Units, done: Callable[[Node], None]) -> None:
        """`units`: of the component's cost that a node is. `done` is called with each node that was
        computed."""
        self._device, self._queue, self._component = place.device, place.queue, place.component
        self._units, self._done = units, done
        self._waiting: deque[Node] = deque()
        self._batch: list[Node] = []
        self.batches = 0

    def __repr__(self) -> str:
        return f"<Batcher {self._queue.name} {len(self._batch)} + {len(self._waiting)}>"

    def __len__(self) -> int:
        """Nodes in hand."""
        return len(self._batch) + len(self._waiting)

    @property
    def alone(self) -> float:
        """Seconds of a node that is computed by itself."""
        return self._component.cost.seconds(1.0)

    def room(self) -> int:
        return CAPACITY - len(self)

    def load(self) -> int:
        return min(LAST, len(self))

    def take(self, node: Node) -> None:
        self._waiting.append(node)
        self._begin()
        self.pull()

    def pull(self) -> None:
        """What waits in the queue, as far as there is room."""
        while found := self._queue.pull(self):
            self._waiting += found
            self._begin()

    def _begin(self) -> None:
        """The next batch, unless one is being computed."""
        while self._waiting and not self._batch:
            most = min(len(self._waiting), self._component.max_batch)
            nodes = [self._waiting.popleft() for _ in range(most)]
            self._batch = [node for node in nodes if not node.job.ended]
            if self._batch:
                self._compute()

    def _compute(self) -> None:
        units = [self._units(node) for node in self._batch]
        seconds = self._component.cost.seconds(sum(units))
        for node, part in zip(self._batch, units, strict=True):
            node.job.spent += seconds * part / sum(units)
        self.batches += 1
        self._device.begin(seconds, self._computed)

    def _computed(self) -> None:
        batch, self._batch = self._batch, []
        self._begin()
        for node in batch:
            self._done(node)
        self.pull()
