"""Jobs that keep a batch busy while something else is measured in it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from shared.client import Darkroom
from shared.client.job import Job
from shared.errors import JobCancelled
from shared.host.tasks import single_error
from shared.messages import GenerationRequest, StepProgress


@dataclass(slots=True)
class Companion:
    """A job that runs, and the steps it has taken so far."""

    job: Job
    steps: list[StepProgress] = field(default_factory=list)
    under_way: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, after: int) -> None:
        """Until the job ends; `under_way` is set after that many steps. Raises what ended it."""
        async for item in self.job.events():
            if isinstance(item, StepProgress):
                self.steps.append(item)
                if item.step >= after:
                    self.under_way.set()
        with suppress(JobCancelled):
            await self.job.images()

    async def leave(self) -> None:
        """Cancelled, and gone."""
        await self.job.cancel()
        await self.job.outcome()


@asynccontextmanager
async def filler_jobs(
    darkroom: Darkroom, requests: Sequence[GenerationRequest], after: int
) -> AsyncIterator[list[Companion]]:
    """All `requests` are in the running batch, `after` steps or more into their jobs, when the
    context is entered. They are cancelled when it is left."""
    companions = [Companion(await darkroom.submit(request)) for request in requests]
    with single_error():
        async with asyncio.TaskGroup() as group:
            for companion in companions:
                group.create_task(companion.follow(after))
            for companion in companions:
                await companion.under_way.wait()
            yield companions
            for companion in companions:
                await companion.leave()
