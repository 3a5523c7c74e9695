"""The queue of one component, and the processes that pull from it, as NATS serves them.

What waits is pulled by whoever has room; what comes while several wait for it goes to the one that
told the least load, and of those to the one that has waited longest.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, Protocol

from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.profiles.profile import Component
from shared.policy.reported_load import IDLE, LAST
from shared.service_classes import CLASSES
from shared.worker.pull import PULL_LIMIT


@dataclass(slots=True, eq=False)
class Node:
    """One picture of a job, or the whole job, on its way through one component."""

    job: Job
    since: float
    """When it became ready."""


class Puller(Protocol):
    """A process that holds the queue's component."""

    def room(self) -> int:
        """Nodes that it would take."""
        ...

    def load(self) -> int:
        """What its next pull tells (`shared/policy/reported_load.py`)."""
        ...

    def take(self, node: Node) -> None: ...


class WorkQueue:
    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, deque[Node]] = {each: deque() for each in CLASSES}
        self._pulls: Final = [OrderedDict[Puller, None]() for _ in range(IDLE, LAST + 1)]
        self._told: dict[Puller, int] = {}

    def __repr__(self) -> str:
        return f"<WorkQueue {self.name}, {len(self)} nodes, {len(self._told)} pulls>"

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))

    def push(self, node: Node) -> None:
        """To whoever waits for it, or into the queue."""
        pulls = next((level for level in self._pulls if level), None)
        if pulls is None:
            self._nodes[node.job.wanted.service_class].append(node)
            return
        puller = next(iter(pulls))
        self._forget(puller)
        puller.take(node)

    def pull(self, puller: Puller) -> list[Node]:
        """What `puller` takes of what waits; if it has room for more, it waits for the next."""
        self._forget(puller)
        found: list[Node] = []
        room = puller.room()
        for nodes in self._nodes.values():
            while nodes and len(found) < min(room, PULL_LIMIT):
                node = nodes.popleft()
                if not node.job.ended:
                    found.append(node)
        if not found and room > 0:
            level = puller.load()
            self._told[puller] = level
            self._pulls[level][puller] = None
        return found

    def leave(self, puller: Puller) -> None:
        """It pulls no more."""
        self._forget(puller)

    def _forget(self, puller: Puller) -> None:
        level = self._told.pop(puller, None)
        if level is not None:
            del self._pulls[level][puller]


@dataclass(frozen=True, slots=True)
class Place:
    """What a process holds on which device, and the queue that it pulls from."""

    clock: Clock
    device: Device
    component: Component
    queue: WorkQueue
