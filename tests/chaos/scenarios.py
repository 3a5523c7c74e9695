"""One job, one process, one moment: what a mistake in the order of deeds or in the fence would do,
without leaving it to chance. With `inject`ed mutants these have to end badly."""

import asyncio
import signal
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from services.fleet.child import Child
from tests.chaos.fleets import FleetPlan, send
from tests.chaos.injection import MUTANT
from tests.chaos.leaks import workers
from tests.chaos.load import requests
from tests.chaos.polling import until
from tests.chaos.recovery import Row
from tests.chaos.trial import Trial

WANTED: Final = [msgspec.structs.replace(requests()[0], steps=120, n=1)]
"""A job that takes longer than a lease."""
WITHIN: Final = 30.0


def plan(mutant: str | None) -> FleetPlan:
    injected: Mapping[str, str] = {} if mutant is None else {MUTANT: mutant}
    few = {"planner": 1, "prompt_encoder": 1, "denoiser": 2, "vae": 1, "gateway": 0}
    return FleetPlan(stand_ins=True, replicas=few, lease=1.0, injected=injected)


async def killed_at_work(trial: Trial) -> None:
    """The process that computes a row dies before the row is finished."""
    job = asyncio.create_task(trial.load.submit(0))
    try:
        row, holder = await _row_under_way(trial)
        trial.recovery.killed(trial.recovery.holders[row], time.time())
        send(holder, signal.SIGKILL)
        trial.runs += 1
        await asyncio.wait([job], timeout=6 * trial.fleet.plan.lease)
    finally:
        job.cancel()


async def woken_at_work(trial: Trial) -> None:
    """The process that computes a row is stopped until another one has taken the row further, and
    writes its next checkpoint then."""
    job = asyncio.create_task(trial.load.submit(0))
    try:
        row, holder = await _row_under_way(trial)
        asleep, stopped_at = trial.recovery.holders[row], trial.recovery.steps[row]
        send(holder, signal.SIGSTOP)
        try:
            await until(
                lambda: (
                    trial.recovery.holders[row] != asleep
                    and trial.recovery.steps[row] > stopped_at + 10
                ),
                "another process to take the row further",
                WITHIN,
            )
        finally:
            send(holder, signal.SIGCONT)
        trial.runs += 1
        await job
    finally:
        job.cancel()


async def one_after_another(trial: Trial) -> None:
    """Both, and how long the row of the dead process stood still."""
    await woken_at_work(trial)
    await trial.room(1)
    await killed_at_work(trial)
    trial.figures |= trial.recovery.figures()


async def _row_under_way(trial: Trial) -> tuple[Row, Child]:
    """A row that has left a checkpoint behind, and the denoiser that holds it."""
    recovery, denoisers = trial.recovery, {c.pid: c for c in trial.fleet.ready("denoiser")}
    await until(lambda: any(step > 4 for step in recovery.steps.values()), "a row", WITHIN)
    row = next(row for row, step in recovery.steps.items() if step > 4)
    names = await workers(trial.fleet.bus)
    return row, next(denoisers[p] for p, name in names.items() if name == recovery.holders[row])
