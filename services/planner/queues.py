"""How much waits in the queues of the services, and whether that leaves room for a job more."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from shared import subjects
from shared.bus.base import Bus
from shared.errors import BusUnavailable
from shared.jobs.graph import Graph
from shared.models.catalogue import Catalogue
from shared.policy.admission import Queue, admit
from shared.services import KINDS_OF_MODELS
from shared.telemetry.metrics import Metrics

DEPTH_SECONDS: Final = 2.0
"""How long a queue's measured depth is believed, with what was let in since; usually it is measured
again before that, once in `WATCH_SECONDS`."""
REFUSAL_SECONDS: Final = 0.2
"""How old it may be to turn a job away."""
WATCH_SECONDS: Final = 1.0
"""Pause between two measurements of all queues."""


class QueueDepths:
    """A short memory of depths. `bound`: nodes that may wait in one queue."""

    def __init__(self, bus: Bus, metrics: Metrics, bound: int) -> None:
        self._bus = bus
        self._metrics = metrics
        self._bound = bound
        self._depths: dict[Queue, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<QueueDepths of {len(self._depths)} queues, at most {self._bound}>"

    @property
    def models(self) -> frozenset[str]:
        """In whose queues anything waits, or runs."""
        return frozenset(model for (_, model), (_, depth) in self._depths.items() if depth)

    async def admit(self, graph: Graph) -> None:
        """Raises `QueueFull` if there is no room for the graph's nodes; else it is taken up."""
        wanted: Counter[Queue] = Counter((node.kind, node.model) for node in graph.values())
        refusal = admit(wanted, await self._waiting(wanted, DEPTH_SECONDS), self._bound)
        if refusal is not None:  # perhaps there is room by now
            refusal = admit(wanted, await self._waiting(wanted, REFUSAL_SECONDS), self._bound)
        if refusal is not None:
            raise refusal
        for queue, count in wanted.items():  # until it is measured again, what was let in counts
            measured_at, depth = self._depths[queue]
            self._depths[queue] = (measured_at, depth + count)

    async def watch(self, served: Callable[[], Catalogue]) -> None:
        """Keep the depths of all queues fresh, for admission and for the metrics, for as long as
        this runs."""
        while True:
            catalogue = served()
            queues = [(kind, model) for model in catalogue.cards for kind in KINDS_OF_MODELS]
            queues += [("hint", control) for control in catalogue.controls]
            for kind, model in queues:
                with contextlib.suppress(BusUnavailable):
                    await self._measure(kind, model)
            await asyncio.sleep(WATCH_SECONDS)

    async def _waiting(self, queues: Iterable[Queue], oldest: float) -> dict[Queue, int]:
        """The depths of `queues`, each measured at most `oldest` seconds ago."""
        waiting: dict[Queue, int] = {}
        for key in queues:
            measured_at, _ = self._depths.get(key, (0.0, 0))
            if time.time() - measured_at > oldest:
                await self._measure(*key)
            waiting[key] = self._depths[key][1]
        return waiting

    async def _measure(self, kind: str, model: str) -> None:
        depth = await self._bus.depth(subjects.WORK, subjects.work_queue(kind, model))
        self._depths[kind, model] = (time.time(), depth)
        self._metrics.queue_depth(kind, model, depth)
