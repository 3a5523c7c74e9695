"""Tells planners what this process has in hand and how fast it is."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from shared import subjects
from shared.bus.base import Bus
from shared.errors import BusUnavailable
from shared.messages import ComponentReport, LoadReport, encode
from shared.policy.release.pace import LOOK_SECONDS, QUIET_SECONDS, differs


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
            await asyncio.sleep(LOOK_SECONDS)

    async def _tell(self, components: tuple[ComponentReport, ...]) -> None:
        report = LoadReport(
            process=self._process,
            at=time.time(),
            components=components,
            leaving=self._leaving.is_set(),
        )
        with contextlib.suppress(BusUnavailable):  # the next one tells as much
            await self._bus.publish(subjects.load(self._process), encode(report))
