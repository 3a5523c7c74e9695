"""A process that encodes prompts or decodes pictures: what waits while it computes is its next
batch (`shared/worker/batched_compute.py`)."""

from collections import deque
from collections.abc import Callable
from statistics import median

from loadgen.simulator.cluster.queue import Node, Place
from shared.policy.reported_load import LAST
from shared.worker.batched_compute import MEMORY

Units = Callable[[Node], float]


class Batcher:
    def __init__(
        self, place: Place, capacity: int, units: Units, done: Callable[[Node], None]
    ) -> None:
        """`capacity`: nodes in hand. `units`: of the component's cost that a node is. `done` is
        called with each node that was computed."""
        self._clock, self._capacity = place.clock, capacity
        self._device, self._queue, self._component = place.device, place.queue, place.component
        self._units, self._done = units, done
        self._waiting: deque[Node] = deque()
        self._batch: list[Node] = []
        self._seconds = deque((self._component.cost.seconds(1.0),), MEMORY)
        """Of the last batches, for each of their units."""
        self._began = 0.0
        self._drained: Callable[[], None] | None = None
        self.batches = 0
        self.changed: Callable[[], None] = lambda: None
        """Called when it has more or less in hand."""

    def __repr__(self) -> str:
        return f"<Batcher {self._queue.name} {len(self._batch)} + {len(self._waiting)}>"

    def __len__(self) -> int:
        """Nodes in hand."""
        return len(self._batch) + len(self._waiting)

    @property
    def each(self) -> float:
        """Seconds that a unit took lately."""
        return median(self._seconds)

    def room(self) -> int:
        return 0 if self._drained else self._capacity - len(self)

    def load(self) -> int:
        return min(LAST, len(self))

    def take(self, node: Node) -> None:
        self._waiting.append(node)
        self.changed()
        self._begin()
        self.pull()

    def pull(self) -> None:
        """What waits in the queue, as far as there is room."""
        while found := self._queue.pull(self):
            self._waiting += found
            self.changed()
            self._begin()

    def drain(self, drained: Callable[[], None]) -> None:
        """Take nothing more, give back what waits, and call `drained` once the rest is computed."""
        self._drained = drained
        self._queue.leave(self)
        while self._waiting:
            self._queue.push(self._waiting.popleft())
        if not self._batch:
            drained()

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
        self._began = self._clock.now
        self._device.begin(seconds, lambda: self._computed(sum(units)))

    def _computed(self, units: float) -> None:
        self._seconds.append((self._clock.now - self._began) / units)
        batch, self._batch = self._batch, []
        self.changed()
        self._begin()
        for node in batch:
            self._done(node)
        self.pull()
        if self._drained is not None and not self:
            self._drained()
