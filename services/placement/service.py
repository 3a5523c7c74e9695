"""The placement service: once a second it looks at who is there and what is asked, and says what
processes shall hold. It keeps nothing that is not in the bus, or measured anew within a minute; if
it ends, processes keep what they hold.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from services.placement.demand import DemandTable
from services.placement.fleet import (
    holders,
    models_of,
    process_of,
    said_after,
    without_away,
)
from services.placement.lease import RENEW_SECONDS, LeaseHolder
from services.placement.scaling import wanted_processes
from shared import subjects
from shared.bus.base import Bus
from shared.bus.discovery import Service, services
from shared.bus.placement import placement, wanted_of
from shared.errors import DarkroomError, InvalidRequest
from shared.messages import decode_load
from shared.messages.components import Placement, WantedProcesses
from shared.policy.placement.place import place
from shared.policy.placement.state import Demand, Move, Process
from shared.policy.release.jobs import Component

log = logging.getLogger(__name__)

DECIDE_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 0.25
"""In which processes say how they stand."""


class PlacementService:
    """Of the process `name`. One of several decides, and the others listen."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._lease = LeaseHolder(bus, name)
        self._table = DemandTable()
        self._moves = 0

    def __repr__(self) -> str:
        return f"<PlacementService {self._lease!r}, {self._moves} moves>"

    def statistics(self) -> dict[str, object]:
        return {"active": self._lease.holds(_now()), "moves": self._moves}

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(each) for each in (self._listen(), self._renew(), self._decide())
            ]
            ready()
            await stop.wait()
            for helper in helpers:
                helper.cancel()

    async def _listen(self) -> None:
        async with self._bus.subscribe(subjects.ALL_LOADS) as reports:
            async for message in reports:
                try:
                    self._table.take(decode_load(message.data), _now())
                except InvalidRequest as error:
                    log.warning("a load cannot be read: %s", error)

    async def _renew(self) -> None:
        while True:
            try:
                await self._lease.renew(_now())
            except DarkroomError as error:
                log.info("the lease of placement cannot be renewed: %s", error)
            await asyncio.sleep(RENEW_SECONDS)

    async def _decide(self) -> None:
        while True:
            demand = self._table.demand(_now())
            if self._lease.holds(_now()) and demand:
                try:
                    await self.decide(await services(self._bus, ANSWER_SECONDS))
                except DarkroomError as error:  # in a second it is tried again
                    log.warning("what processes shall hold cannot be decided: %s", error)
            await asyncio.sleep(DECIDE_SECONDS)

    async def decide(self, found: list[Service]) -> tuple[Move, ...]:
        """Say what those of `found` shall hold that are to change."""
        there = holders(found)
        said = {one.process: await placement(self._bus, one.process).read() for one in there}
        common = {one.service: await placement(self._bus, one.service).read() for one in there}
        processes = [process_of(one, said[one.process]) for one in there]
        models = without_away(models_of(there), common)
        demand = self._table.demand(_now())
        moves = place(models, processes, demand)
        by_name = {one.name: one for one in processes}
        for move in moves:
            if not self._lease.holds(_now()):
                break  # it was lost meanwhile, and another one decides
            await self._say(move, by_name[move.process], demand)
        for fleet, wanted in wanted_processes(there, processes, models, demand).items():
            if self._lease.holds(_now()):
                await self._scale(fleet, wanted)
        return moves

    async def _scale(self, fleet: str, wanted: dict[str, int]) -> None:
        """What was said last is read anew, for another one may have decided meanwhile."""
        message, said = WantedProcesses(processes=wanted), wanted_of(self._bus, fleet)
        if await said.read() == message:
            return
        await said.change(lambda _: message)
        log.info("%s shall have %s", fleet, ", ".join(f"{n} {s}" for s, n in wanted.items()))

    async def _say(self, move: Move, process: Process, demand: Mapping[Component, Demand]) -> None:
        def change(before: Placement | None) -> Placement:
            return said_after(move, process, before, demand)

        await placement(self._bus, move.process).change(change)
        self._moves += 1
        log.info(
            "%s shall load %s and unload %s",
            move.process,
            ", ".join(name for _, name in move.loads) or "nothing",
            ", ".join(name for _, name in move.unloads) or "nothing",
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
