"""Jobs that kill whoever computes them, in the company of others and alone."""

import asyncio
from collections.abc import Callable
from typing import Final

from shared.messages import JobDone, JobFailed, Outcome
from tests.chaos.fleet.injection import POISON
from tests.chaos.trial import Trial, dead_letters

MARKER: Final = "a poisoned apple"
INJECTED: Final = {POISON: MARKER}


class Poisoned:
    """Which jobs were poisoned, and what has to come of them and of the others."""

    def __init__(self) -> None:
        self.jobs: set[str] = set()

    def expected(self, job_id: str, outcome: Outcome) -> bool:
        return isinstance(outcome, JobFailed if job_id in self.jobs else JobDone)

    async def run(self, trial: Trial, poisoned: int, healthy: int) -> None:
        """`poisoned` jobs among `healthy` ones, half of them while nothing else runs."""
        company = poisoned - poisoned // 2
        async with asyncio.TaskGroup() as group:
            poisoning = group.create_task(self._poison(trial, company))
            await trial.load.run(_both(poisoning, trial, healthy))
        await self._poison(trial, poisoned // 2)
        lettered = await dead_letters(trial)
        trial.figures["dead-lettered"] = len(lettered)
        if lettered != self.jobs:
            innocent, spared = len(lettered - self.jobs), len(self.jobs - lettered)
            trial.remarks.append(
                f"{innocent} innocent jobs dead-lettered, {spared} poisoned ones not"
            )

    async def _poison(self, trial: Trial, count: int) -> None:
        for number in range(count):
            prompt = f"{MARKER}, number {number}"
            self.jobs.add(await trial.load.submit(number, prompt=prompt))
            trial.runs += 1


def _both(task: asyncio.Task[None], trial: Trial, jobs: int) -> Callable[[], bool]:
    return lambda: task.done() and len(trial.load.acknowledged) >= jobs
