"""Darkroom over NATS: the jobs go into its queue directly, without a gateway."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from loadgen.outcomes.occupancy import NatsSource, Source
from loadgen.outcomes.outcome import Shot
from loadgen.targets.base import NATS_FIELDS, Answer, unsent
from loadgen.workload.controls import choices
from shared.bus.base import Bus
from shared.client import Darkroom, new_job_id
from shared.client.job import Job
from shared.errors import DarkroomError, InvalidRequest, JobFailed, PayloadTooLarge, QueueFull
from shared.messages import GenerationRequest, LoraChoice
from shared.security.keys import Credentials

CANCEL_SECONDS: Final = 4.0
"""How long a job that nobody waits for any more is asked to end."""
MAX_WATCHED: Final = 65_536
"""Jobs watched at a time: more than any runner's own bound, so that the runner's counts."""


class NatsTarget:
    """Cancellations of jobs that were given up are asked for by tasks of `group`; at most one for
    each request in flight."""

    def __init__(self, bus: Bus, darkroom: Darkroom, url: str, group: asyncio.TaskGroup) -> None:
        self.name = f"darkroom at {url}"
        self.takes = NATS_FIELDS
        self.source: Source = NatsSource(bus)
        self._darkroom = darkroom
        self._group = group

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, credentials: Credentials | None = None) -> AsyncIterator[Self]:
        """`credentials`: None for what the environment says. Raises `BusUnavailable` if there is
        no server."""
        from shared.bus.nats import connect

        bus = await connect(url, "darkroom-load", budget=10.0, credentials=credentials)
        try:
            async with (
                Darkroom(bus, max_jobs=MAX_WATCHED) as darkroom,
                asyncio.TaskGroup() as group,
            ):
                yield cls(bus, darkroom, url, group)
        finally:
            await bus.close()

    async def send(self, shot: Shot) -> Answer:
        job: Job | None = None
        try:
            wanted = job_request(shot, new_job_id(), time.time())
            job = await self._darkroom.submit(wanted, progress=False)
            images = await job.images()
        except DarkroomError as error:
            return unsent(error) or answer(error)
        except asyncio.CancelledError:
            if job is not None:
                self._group.create_task(self._cancel(job.job_id))
            raise
        finally:
            if job is not None:
                job.close()
        return Answer("done", None, len(images), sum(len(image.data) for image in images))

    async def _cancel(self, job_id: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._darkroom.cancel(job_id)
        except (DarkroomError, TimeoutError):
            pass  # its image is of no use to anybody, but it does no harm either


def job_request(shot: Shot, job_id: str, now: float) -> GenerationRequest:
    """`shot` as a job; `now` is in Unix seconds. Raises `InvalidRequest` if a control image
    cannot be read."""
    wanted = shot.request
    return GenerationRequest(
        job_id=job_id,
        prompt=wanted.prompt,
        model=wanted.model,
        negative_prompt=wanted.negative_prompt or None,
        n=wanted.n,
        width=wanted.width,
        height=wanted.height,
        steps=wanted.steps,
        guidance=wanted.guidance,
        sampler=wanted.sampler,
        seed=wanted.seed,
        loras=tuple(LoraChoice(name=name) for name in wanted.loras),
        controls=choices(wanted.controls),
        service_class=wanted.service_class,
        deadline=None if wanted.deadline is None else now + wanted.deadline,
        user=shot.tenant,
    )


def answer(error: DarkroomError) -> Answer:
    """How a request that brought no image ended."""
    match error:
        case JobFailed():
            return Answer("failed", str(error.fields["failure_code"]))
        case InvalidRequest() | QueueFull() | PayloadTooLarge():
            return Answer("rejected", error.code)
        case _:
            return Answer("failed", error.code)
