"""Models that were let go are held again once a job waits for them."""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from shared.bus.base import Bus
from shared.bus.model_states import HOLDERS, ModelState
from shared.bus.placement import placement, within
from shared.errors import DarkroomError

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 1.0
"""Pause between two looks."""


class WantedModels:
    """`waited_for`: see `Serving`. `waiting`: models of which anything waits."""

    def __init__(
        self,
        bus: Bus,
        waited_for: Callable[[str], ModelState | None],
        waiting: Callable[[], Collection[str]],
    ) -> None:
        self._bus, self._waited_for, self._waiting = bus, waited_for, waiting
        self._asked = asyncio.Event()

    def __repr__(self) -> str:
        return f"<WantedModels {', '.join(self._waiting())}>"

    def look_now(self) -> None:
        """A job is about to wait."""
        self._asked.set()

    async def watch(self) -> None:
        """For as long as this runs."""
        while True:
            self._asked.clear()
            for model in self._waiting():
                stands = self._waited_for(model)
                if stands is not None and stands.state in ("on disk", "draining"):
                    await self._hold(model)
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._asked.wait()
            await asyncio.sleep(0)  # what asked is among those that wait by now

    async def _hold(self, model: str) -> None:
        """In each service whose processes were told to let it go."""
        try:
            for service in HOLDERS:
                document = placement(self._bus, service)
                said = await document.read()
                if said is not None and model in said.away:
                    log.info("%s is wanted, and is loaded again", model)
                    await document.change(within((model,), awaited=True))
        except DarkroomError as error:  # the next look tries again
            log.warning("%s cannot be asked for: %s", model, error)
