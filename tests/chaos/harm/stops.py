"""Processes that stop for longer than their lease, and wake up as if nothing had happened."""

import asyncio
import signal
from typing import Final

from services.fleet.supervisor.child import Child
from tests.chaos.fleet.fleets import send
from tests.chaos.trial import Trial

BEYOND: Final = (1.5, 2.5)
"""How long a process is stopped, in leases."""
REFUSED: Final = b"is another's by now"
"""What a process logs that finds its work in other hands when it wakes up."""


async def stop_and_continue(trial: Trial, stops: int) -> None:
    """SIGSTOP beyond the lease, then SIGCONT: what it writes then must be refused."""

    async def stop() -> None:
        while trial.runs < stops:
            await trial.room(1)
            victim = trial.fleet.victim(trial.chance)
            if victim is not None and await _stopped(trial, victim):
                trial.runs += 1

    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(stop())
        await trial.load.run(stopping.done)
    trial.figures["refused at waking"] = _refusals(trial)


async def _stopped(trial: Trial, victim: Child) -> bool:
    """Keep `victim` from running beyond its lease. False if it ended meanwhile."""
    pid = send(victim, signal.SIGSTOP)
    try:
        await asyncio.sleep(trial.fleet.plan.lease * trial.chance.uniform(*BEYOND))
    finally:
        if victim.pid == pid:
            send(victim, signal.SIGCONT)
    return victim.pid == pid


def _refusals(trial: Trial) -> int:
    return sum(path.read_bytes().count(REFUSED) for path in trial.fleet.logs.glob("*.log"))
