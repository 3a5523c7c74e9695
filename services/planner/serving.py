"""Whether anybody takes the work of a job: who says of itself that it takes none, for good, is no
reason to let jobs wait for it. Who is merely absent may be back in a moment: jobs wait for that."""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Collection
from contextlib import suppress
from typing import Final

import msgspec

from shared import subjects
from shared.bus.base import Bus, Message
from shared.bus.discovery import Service, refusals, services
from shared.bus.model_states import ModelState, waited_for
from shared.bus.readiness import common
from shared.errors import DarkroomError, NotServed
from shared.jobs.graph import Graph
from shared.models.catalogue import Catalogue
from shared.models.usable import as_found
from shared.services import SERVICE_OF

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 1.0
"""Pause between two questions who takes work."""
ANSWER_SECONDS: Final = 0.25
LOOKS_AT_A_CHANGE: Final = 4
"""One after another."""


def unserved(graph: Graph, found: Collection[Service]) -> NotServed | None:
    """None to let a job in, or the refusal: all those among `found` that hold what one of its nodes
    needs refuse it, and will go on to."""
    for node in graph.values():
        service = SERVICE_OF[node.kind]
        refusal = common(refusals(found, service, node.model))
        if refusal is not None and refusal.lasting:
            return NotServed(service, node.model, refusal.reason)
    return None


class Serving:
    """Remembers who answered last. `catalogue` is that of all models, and knows which of them
    nobody could load."""

    def __init__(self, bus: Bus, catalogue: Catalogue) -> None:
        self._bus = bus
        self.catalogue = catalogue
        self._found: Collection[Service] = ()
        self._changed = asyncio.Event()
        self._looked_at = 0.0

    def __repr__(self) -> str:
        return f"<Serving {len(self._found)} processes>"

    def take(self, catalogue: Catalogue) -> None:
        """Models were added or removed."""
        self.catalogue = as_found(catalogue.after(self.catalogue), self._found)

    def waited_for(self, model: str) -> ModelState | None:
        """How a model stands that is not loaded, and jobs wait for; None: they need not."""
        found = waited_for(self._found, model)
        if found is None or found.seconds is None:
            return found
        left = max(0.0, found.seconds - (time.monotonic() - self._looked_at))
        return msgspec.structs.replace(found, seconds=left)

    async def refuse_unserved(self, graph: Graph) -> None:
        """Raises `NotServed` if the graph's nodes would not be taken; a job is turned away for what
        holds now."""
        if unserved(graph, self._found) is None:
            return
        await self._look()
        refusal = unserved(graph, self._found)
        if refusal is not None:
            raise refusal

    async def watch(self) -> None:
        """For as long as this runs."""
        async with self._bus.subscribe(subjects.PLACED) as told, asyncio.TaskGroup() as group:
            group.create_task(self._listen(told))
            while True:
                self._changed.clear()
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_SECONDS):
                        await self._changed.wait()

    async def _listen(self, told: AsyncIterable[Message]) -> None:
        """Components come and go soon after it was said what processes shall hold: look again and
        again then."""
        async for _ in told:
            for _ in range(LOOKS_AT_A_CHANGE):
                self._changed.set()
                await asyncio.sleep(ANSWER_SECONDS)

    async def _look(self) -> None:
        try:
            self._found = await services(self._bus, ANSWER_SECONDS)
        except DarkroomError as error:  # nobody is refused for what is not known
            log.info("who takes work cannot be asked: %s", error)
            self._found = ()
        self._looked_at = time.monotonic()
        self.catalogue = as_found(self.catalogue, self._found)
