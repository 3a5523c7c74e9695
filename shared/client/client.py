"""The Python client: submit jobs over NATS, follow them, await their images, cancel them.

async with Darkroom.connect("nats://127.0.0.1:4222") as client:
    job = await client.submit(GenerationRequest(job_id=new_job_id(), prompt="a red circle"))
    async for event in job.events():
        print(event)
    [image] = await job.images()
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Self

from shared import subjects
from shared.bus.base import Bus
from shared.bus.discovery import model_sizes
from shared.client.calls import cancel_job, stored_image
from shared.client.job import Job
from shared.errors import BusUnavailable, InvalidRequest, JobNotFound, QueueFull
from shared.host.one_thread import OneThread
from shared.jobs.record import JobRecord
from shared.jobs.travel import fitted_to_travel, travels
from shared.messages import (
    JOB_ID_PATTERN,
    CancelReply,
    GenerationRequest,
    ImageResult,
    Outcome,
    WaitingReply,
    decode,
    decode_outcome,
    encode,
)
from shared.security.keys import Credentials

MAX_JOBS: Final = 1024
"""Jobs that one client watches at a time, unless told otherwise."""
ANSWER_SECONDS: Final = 0.5
"""For planners to say which sizes their models draw."""


def new_job_id() -> str:
    return uuid.uuid4().hex


def is_random(job_id: str) -> bool:
    """Whether `job_id` has the form of those that `new_job_id` makes, 122 bits of chance: nobody
    guesses one. Clients on the bus may choose others, such as `job-1`."""
    return re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", job_id) is not None


def checked_job_id(job_id: str) -> str:
    """`job_id`, fit to be part of a subject. Raises `InvalidRequest`."""
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise InvalidRequest("job_id", job_id, f"text matching {JOB_ID_PATTERN}")
    return job_id


class Darkroom:
    """Jobs on `bus`, which stays the caller's. Use as an async context manager: leaving it ends
    the watching, not the jobs. `headers` (trace context) go with every submitted job.

    Job ids that cannot be one (see `JOB_ID_PATTERN`) raise `InvalidRequest` everywhere."""

    def __init__(
        self,
        bus: Bus,
        *,
        max_jobs: int = MAX_JOBS,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._bus = bus
        self._max_jobs = max_jobs
        self._headers = headers
        self._fitting = OneThread()
        """Images are decoded one request at a time."""
        self._tasks = asyncio.TaskGroup()
        self._watched: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, name: str = "darkroom-client", credentials: Credentials | None = None
    ) -> AsyncIterator[Self]:
        """A client with its own connection. Without `credentials`, those that DARKROOM_CREDENTIALS
        names are used, if any. Raises `BusUnavailable` if there is no server, `Misconfigured` if
        it does not know us."""
        from shared.bus.nats import connect

        bus = await connect(url, name, credentials=credentials)
        try:
            async with cls(bus) as darkroom:
                yield darkroom
        finally:
            await bus.close()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        for task in self._watched:
            task.cancel()
        # The group is not told of the exception: it would come out wrapped in an ExceptionGroup.
        await self._tasks.__aexit__(None, None, None)

    def __repr__(self) -> str:
        return f"<Darkroom {len(self._watched)}/{self._max_jobs} jobs watched>"

    async def submit(self, request: GenerationRequest, *, progress: bool = True) -> Job:
        """Put the job into the queue, and watch it: its results, and with `progress` its steps. A
        job id that is already known is success: what is watched then is that job. Images that are
        too large for a message are fitted before (see `shared.jobs.travel`). Raises `QueueFull`,
        `PayloadTooLarge`, `BusUnavailable`, and `InvalidRequest` about such images; what a
        planner finds wrong with the request ends the job instead."""
        if not travels(request):
            request = await self._fitted(request)
        job = await self._watch(Job(self._bus, checked_job_id(request.job_id), progress=progress))
        try:
            await self._bus.store(subjects.submit(request.job_id), encode(request), self._headers())
        except BaseException:
            job.close()
            raise
        return job

    async def _fitted(self, request: GenerationRequest) -> GenerationRequest:
        """Raises `InvalidRequest`."""
        limits = await model_sizes(self._bus, request.model, ANSWER_SECONDS)
        if limits is None:
            allowed = "one that a planner serves, for it says the size of these images"
            raise InvalidRequest("model", request.model, allowed)
        return await self._fitting.call(fitted_to_travel, request, limits)

    async def attach(self, job_id: str) -> Job:
        """Watch a job that was submitted before, by anybody. Raises `JobNotFound`."""
        known = (
            await self.queued(job_id)
            or await self._bus.get(subjects.RECORDS, job_id) is not None
            or await self.stored_outcome(job_id) is not None
        )
        if not known:
            raise JobNotFound(job_id)
        return await self._watch(Job(self._bus, job_id, look_first=True))

    async def cancel(self, job_id: str) -> CancelReply:
        """See `shared.client.calls.cancel_job`."""
        return await cancel_job(self._bus, checked_job_id(job_id))

    async def job(self, job_id: str) -> JobRecord:
        """The job's record. Raises `JobNotFound`, also while no planner has taken the job."""
        entry = await self._bus.get(subjects.RECORDS, checked_job_id(job_id))
        if entry is None:
            raise JobNotFound(job_id)
        return decode(entry.value, JobRecord)

    async def queued(self, job_id: str) -> bool:
        """Whether the job still waits for a planner."""
        return await self._bus.stored(subjects.submit(checked_job_id(job_id))) is not None

    async def waiting(self, job_id: str) -> WaitingReply:
        """How a job that waits to be released stands, as far as a planner knows."""
        try:
            answer = await self._bus.request(
                subjects.waiting(checked_job_id(job_id)), b"", ANSWER_SECONDS
            )
        except BusUnavailable:  # no planner has it, for the moment
            return WaitingReply(job_id=job_id, position=None, seconds=None)
        return decode(answer.data, WaitingReply)

    async def stored_outcome(self, job_id: str) -> Outcome | None:
        """How the job ended, if it has."""
        data = await self._bus.stored(subjects.result(checked_job_id(job_id)))
        return None if data is None else decode_outcome(data)

    async def image(self, job_id: str, index: int) -> ImageResult:
        """One stored image. Raises `JobFailed` with code `result_missing` if it is not there."""
        return await stored_image(self._bus, checked_job_id(job_id), index)

    async def _watch(self, job: Job) -> Job:
        if len(self._watched) >= self._max_jobs:
            raise QueueFull("jobs watched by this client", self._max_jobs)
        task = job.start(self._tasks)
        self._watched.add(task)
        task.add_done_callback(self._watched.discard)
        try:
            await job.listening()
        except BaseException:
            job.close()
            raise
        return job
