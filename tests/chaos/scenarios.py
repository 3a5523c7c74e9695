"""One job, one process, one moment: what a mistake in the order of deeds or in the fence would do,
without leaving it to chance. With `inject`ed mutants these have to end badly."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.chaos.check.recovery import Row
from tests.chaos.fleet.fleets import ChaosFleet, FleetPlan, chaos_fleet
from tests.chaos.fleet.holds import Hold, hold
from tests.chaos.fleet.injection import AT_POINTS, MUTANT
from tests.chaos.fleet.polling import until
from tests.chaos.harm.points import prepared
from tests.chaos.load import requests
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

WANTED: Final = [msgspec.structs.replace(requests()[0], steps=20, n=1)]
HARMED: Final = 5
"""Steps that the row has taken when its process is harmed; its checkpoint is of the fourth."""
FURTHER: Final = 15
"""Steps that another process has taken it to when that one wakes up."""


@asynccontextmanager
async def mutant_fleet(mutant: str) -> AsyncIterator[ChaosFleet]:
    few = {"planner": 1, "prompt_encoder": 1, "denoiser": 2, "vae": 1, "gateway": 0}
    with tempfile.TemporaryDirectory() as points:
        injected = {MUTANT: mutant, **prepared(Path(points))}
        plan = FleetPlan(stand_ins=True, replicas=few, lease=1.0, injected=injected)
        async with chaos_fleet(plan) as fleet:
            yield fleet


async def killed_at_work(trial: Trial) -> None:
    """The process that computes a row dies before the row is finished."""
    async with _row_under_way(trial) as (_, row, held):
        trial.recovery.killed(trial.recovery.holders[row], time.time())
        os.kill(await held.reached(), signal.SIGKILL)
        trial.runs += 1


async def woken_at_work(trial: Trial) -> None:
    """The process that computes a row is stopped until another one has taken the row further, and
    writes its next checkpoint then, while that one stands still."""
    async with _row_under_way(trial) as (job, _, held):
        pid = await held.reached()
        os.kill(pid, signal.SIGSTOP)
        held.release()
        try:
            with hold(_points(trial), f"step-{FURTHER}@denoiser") as further:
                await further.reached()
                with hold(_points(trial), "checkpoint.after@denoiser") as written:
                    os.kill(pid, signal.SIGCONT)
                    assert await written.reached() == pid
        finally:
            os.kill(pid, signal.SIGCONT)
        trial.runs += 1
        await job


async def one_after_another(trial: Trial) -> None:
    """Both, and the row of the dead process goes on."""
    await woken_at_work(trial)
    await trial.room(1)
    await killed_at_work(trial)
    await until(lambda: not trial.recovery.standing(), "the row to go on", HANG_SECONDS)
    trial.figures |= trial.recovery.figures()


def _points(trial: Trial) -> Path:
    return Path(trial.fleet.plan.injected[AT_POINTS])


@asynccontextmanager
async def _row_under_way(trial: Trial) -> AsyncIterator[tuple[asyncio.Task[str], Row, Hold]]:
    """A job, its row, and the denoiser that is held with it; nobody waits for the job later."""
    with hold(_points(trial), f"step-{HARMED}@denoiser") as held:
        job = asyncio.create_task(trial.load.submit(0))
        try:
            await held.reached()
            steps = trial.recovery.steps
            await until(lambda: HARMED in steps.values(), "news of the row", HANG_SECONDS)
            yield job, next(row for row, step in steps.items() if step == HARMED), held
        finally:
            job.cancel()
