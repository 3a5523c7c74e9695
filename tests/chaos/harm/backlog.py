"""A burst that fills the backlog, and a planner that dies with it."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Final

from shared import subjects
from shared.errors import BusUnavailable
from tests.chaos.fleet.fleets import send
from tests.chaos.trial import Trial

PLANNERS: Final = "planner"
FAR_SECONDS: Final = 600.0
"""A deadline that is promised, and that no harm makes anybody miss."""


async def burst(trial: Trial, jobs: int) -> None:
    """So many jobs at once, every third with a deadline; returns when all have been heard of."""
    load = trial.load
    async with asyncio.TaskGroup() as group:
        for number in range(jobs):
            far = {} if number % 3 else {"deadline": time.time() + FAR_SECONDS}
            group.create_task(load.submit(number % len(load.requests), **far))


async def planner_kills(trial: Trial, kills: int, jobs: int) -> None:
    """kill -9 of a planner that has a backlog, again and again: a good part of a burst of `jobs`,
    which stays unacknowledged, so that the next planner has it."""
    waiting: list[int] = []
    for _ in range(kills):
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(burst(trial, jobs))
            waiting.append(await _waiting(trial, jobs // 4, filling.done))
            victim = trial.fleet.victim(trial.chance, PLANNERS)
            if victim is not None:
                await trial.ready(victim, send(victim, signal.SIGKILL))
                trial.runs += 1
    trial.figures |= {"fewest waiting at a kill": min(waiting, default=0)}


async def _waiting(trial: Trial, least: int, over: Callable[[], bool]) -> int:
    """Submissions that planners have and have not acknowledged, once they are `least`; or when
    it is `over`."""
    while not over():
        try:
            depth = await trial.fleet.bus.depth(subjects.JOBS, subjects.ALL_SUBMITS)
        except BusUnavailable:
            continue
        if depth >= least:
            return depth
        await asyncio.sleep(0.02)
    return 0
