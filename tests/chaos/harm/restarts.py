"""The bus killed and started again, and every service replaced, one after another, under load."""

import asyncio
import signal
import time

from tests.chaos.fleet.fleets import send
from tests.chaos.trial import Trial

PAUSE_SECONDS = (0.3, 2.0)
"""Between two kills of the bus."""


async def broker_kills(trial: Trial, kills: int) -> None:
    """kill -9 of nats-server, which comes back with what it had acknowledged."""
    away: list[float] = []

    async def kill() -> None:
        while trial.runs < kills:
            await asyncio.sleep(trial.chance.uniform(*PAUSE_SECONDS))
            began = time.monotonic()
            await trial.fleet.broker.restart()
            away.append(time.monotonic() - began)
            trial.runs += 1

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill())
        await trial.load.run(killing.done)
    trial.figures |= {
        "longest away s": max(away, default=0.0),
        "longest gap between ends s": trial.load.longest_gap,
    }


async def rolling_restart(trial: Trial, rounds: int) -> None:
    """SIGTERM to one process after another; the next when the one before works again."""

    async def restart() -> None:
        for _ in range(rounds):
            for child in trial.fleet.children:
                await trial.room(1)
                await trial.ready(child, send(child, signal.SIGTERM))
            trial.runs += 1

    async with asyncio.TaskGroup() as group:
        restarting = group.create_task(restart())
        await trial.load.run(restarting.done)
