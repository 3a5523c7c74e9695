"""kill -9 of random services under load, and of a denoiser with rows under way."""

import asyncio
import signal
import time
from collections.abc import Mapping
from functools import partial

from services.fleet.supervisor.child import Child
from tests.chaos.check.leaks import workers
from tests.chaos.fleet.fleets import send
from tests.chaos.fleet.polling import until
from tests.chaos.harm.backlog import burst
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

PAUSE_SECONDS = (0.1, 1.0)
"""Between two kills, if as many processes as may be are not down already."""


async def random_kills(
    trial: Trial, kills: int, jobs: int, *services: str, at_once: int = 0
) -> None:
    """`kills` kills, of these services or of any, while at least `jobs` jobs pass, `at_once` of
    them in the middle."""

    async def kill() -> None:
        while trial.runs < kills:
            await asyncio.sleep(trial.chance.uniform(*PAUSE_SECONDS))
            await trial.room()
            await _kill_one(trial, *services)
            if trial.runs == kills // 2 and not bursts:
                bursts.append(group.create_task(burst(trial, at_once)))

    bursts: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill())
        await trial.load.run(lambda: killing.done() and len(trial.load.acknowledged) >= jobs)
    trial.figures |= trial.recovery.figures()


async def _kill_one(trial: Trial, *services: str) -> None:
    victim = trial.fleet.victim(trial.chance, *services)
    if victim is None or victim.pid is None:
        return
    name = None
    if victim.spec.service == "denoiser":
        name = await trial.recovery.worker_of(victim.pid)
        if victim.state != "ready":
            return
    at = time.time()
    try:
        send(victim, signal.SIGKILL)
    except ProcessLookupError:  # it was killed a moment ago, and its supervisor has not heard yet
        return
    if name is not None:
        trial.recovery.killed(name, at)
    trial.runs += 1


def _at_work(trial: Trial, names: Mapping[int, str]) -> list[tuple[Child, str]]:
    """Denoisers with several rows under way, and the names that events have of them."""
    found = [
        (child, names[child.pid])
        for child in trial.fleet.ready("denoiser")
        if child.pid is not None and child.pid in names
    ]
    return [(child, name) for child, name in found if len(trial.recovery.rows_of(name)) > 1]


async def takeover(trial: Trial, kills: int) -> None:
    """A denoiser dies with rows under way while another one lives: how long do they stand still?
    They have to go on within the lease and 2 s, 95 of 100."""

    async def kill() -> None:
        while trial.runs < kills:
            await trial.room(1)
            names = await workers(trial.fleet.bus)
            await until(partial(_at_work, trial, names), "a denoiser to have rows", HANG_SECONDS)
            victim, name = trial.chance.choice(_at_work(trial, names))
            pid = victim.pid
            assert pid is not None
            at = time.time()
            send(victim, signal.SIGKILL)
            trial.recovery.killed(name, at)
            trial.runs += 1
            await trial.ready(victim, pid)

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill())
        await trial.load.run(killing.done)
    trial.figures |= {"lease s": trial.fleet.plan.lease, **trial.recovery.figures()}
    p95 = trial.figures.get("next step p95 s")
    if p95 is None:
        trial.remarks.append("no row was seen to go on elsewhere")
    elif float(p95) > trial.fleet.plan.lease + 2.0:
        trial.remarks.append(f"rows stood still for {p95:.2f} s (p95)")
