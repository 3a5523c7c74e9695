"""Tells planners what this process has in hand and how fast it is."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from shared import subjects
from shared.bus.base import Bus
from shared.errors import BusUnavailable
from shared.messages import ComponentReport, LoadReport, encode

TICK_SECONDS: Final = 0.03
"""Between two looks: until a planner hears that a row came, or left, it takes it to be on its way,
or still there. A row that comes and leaves between two looks is not seen."""
QUIET_SECONDS: Final = 0.5
"""Between two messages of a process whose load does not change."""
CHANGED: Final = 0.2
"""Share by which seconds in hand differ that is worth a message."""


class LoadPublisher:
    """`sources`: each says how its components stand."""

    def __init__(
        self,
        bus: Bus,
        process: str,
        sources: Sequence[Callable[[], Sequence[ComponentReport]]],
        leaving: asyncio.Event,
    ) -> None:
        self._bus = bus
        self._process = process
        self._sources = tuple(sources)
        self._leaving = leaving

    def __repr__(self) -> str:
        return f"<LoadPublisher {self._process}>"

    async def run(self) -> None:
        """For as long as this runs."""
        told: tuple[ComponentReport, ...] = ()
        at = 0.0
        while True:
            components = tuple(c for source in self._sources for c in source())
            now = asyncio.get_running_loop().time()
            if now - at >= QUIET_SECONDS or differs(told, components):
                await self._tell(components)
                told, at = components, now
            await asyncio.sleep(TICK_SECONDS)

    async def _tell(self, components: tuple[ComponentReport, ...]) -> None:
        report = LoadReport(
            process=self._process,
            at=time.time(),
            components=components,
            leaving=self._leaving.is_set(),
        )
        with contextlib.suppress(BusUnavailable):  # the next one tells as much
            await self._bus.publish(subjects.load(self._process), encode(report))


def differs(told: Sequence[ComponentReport], now: Sequence[ComponentReport]) -> bool:
    """Whether planners should know at once."""
    if len(told) != len(now):
        return True
    return any(
        old.count != new.count
        or abs(old.seconds - new.seconds) > CHANGED * (old.seconds + 0.1)
        or _jobs(old) != _jobs(new)
        for old, new in zip(told, now, strict=True)
    )


def _jobs(component: ComponentReport) -> list[str]:
    """Whose rows it has: where one comes whenever one leaves, the rest stays the same."""
    return [row.job_id for row in component.rows]
