"""Users of a fleet under fire: few distinct requests, many jobs of each, so that every picture can
be compared with the one that was painted before anything was harmed.
"""

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from PIL import Image

from shared.client import Darkroom, new_job_id
from shared.client.job import Job
from shared.errors import BusUnavailable, QueueFull
from shared.messages import GenerationRequest, ImageResult, decode
from tests.chaos.check.audit import History
from tests.chaos.fleet.polling import until
from tests.conftest import HANG_SECONDS

USERS: Final = 16
"""Jobs that are under way at a time."""
JOB_SECONDS: Final = HANG_SECONDS
"""How long a user waits for a job before going on to the next; whether it was lost is found out
at the end."""
_SCENES: Final = (
    "a large red circle left and a small blue square right on white",
    "a large green star top and a small yellow ring right on black",
    "a small purple triangle bottom on grey",
)
_CLASSES: Final = ("standard", "interactive", "batch", "standard")


def requests(steps: Sequence[int] = (4, 6, 8, 10)) -> list[GenerationRequest]:
    """Twelve: every scene with every number of steps, one of them with two images."""
    return [
        GenerationRequest(
            job_id="set-for-each-job",
            prompt=scene,
            steps=count,
            seed=100 * number + count,
            n=2 if number == 0 and count == steps[0] else 1,
            sampler="euler_ancestral" if number == 1 else "euler",
            service_class=_CLASSES[place],
        )
        for number, scene in enumerate(_SCENES)
        for place, count in enumerate(steps)
    ]


@dataclass(slots=True)
class Load:
    """Jobs submitted through `darkroom`; `acknowledged` says which of `requests` each one is."""

    darkroom: Darkroom
    requests: Sequence[GenerationRequest]
    users: int = USERS
    references: dict[int, list[ImageResult]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    """Jobs that a user waits for."""
    heard: list[float] = field(default_factory=list)
    """When users heard of the ends of their jobs, on the monotonic clock."""
    refused: int = 0
    """Times that a queue was full."""
    _number: int = 0

    async def paint_references(self) -> None:
        """One undisturbed job of each request."""
        async with asyncio.TaskGroup() as group:
            for kind in range(len(self.requests)):
                group.create_task(self._paint(kind))

    async def run(self, enough: Callable[[], bool]) -> None:
        """Users come back with another job until `enough()`; returns when they have heard."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.users):
                group.create_task(self._user(enough))

    async def submit(self, kind: int, **changes: object) -> str:
        """Insist until the submission is acknowledged; the same job id is one job."""
        job_id = new_job_id()
        request = msgspec.structs.replace(self.requests[kind], job_id=job_id, **changes)
        while True:
            try:
                job = await self.darkroom.submit(request)
            except QueueFull:
                self.refused += 1
            except BusUnavailable:
                pass
            else:
                self.acknowledged[job_id] = kind
                await self._wait_for(job)
                return job_id
            await asyncio.sleep(0.1)

    async def _wait_for(self, job: Job) -> None:
        self.under_way.add(job.job_id)
        try:
            async with asyncio.timeout(JOB_SECONDS):
                await job.outcome()
            self.heard.append(time.monotonic())
        except (TimeoutError, BusUnavailable):
            job.close()
        finally:
            self.under_way.discard(job.job_id)

    async def others_than(self, jobs: set[str], within: float) -> None:
        """Return when none of these jobs is under way any more."""
        await until(lambda: not jobs & self.under_way, "jobs to end", within)

    async def _paint(self, kind: int) -> None:
        job = await self.darkroom.submit(
            msgspec.structs.replace(self.requests[kind], job_id=new_job_id())
        )
        async with asyncio.timeout(JOB_SECONDS):
            self.references[kind] = await job.images()

    async def _user(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self._number += 1
            await self.submit(self._number % len(self.requests))

    @property
    def longest_gap(self) -> float:
        """Seconds in which no user heard of an end."""
        return max((later - earlier for earlier, later in pairwise(self.heard)), default=0.0)

    def differing(self, history: History) -> list[str]:
        """Stored images that are not those painted before, as `job/index`."""
        found = []
        for stored in history.results:
            *_, job_id, last = stored.subject.split(".")
            if job_id in self.acknowledged and last != job_id:
                image = decode(stored.data, ImageResult)
                reference = self.references[self.acknowledged[job_id]][image.index]
                if largest_difference(image.data, reference.data) > 1:
                    found.append(f"{job_id}/{image.index}")
        return found


def largest_difference(first: bytes, second: bytes) -> int:
    """Of any pixel's channel, in steps of 1/255; 255 for pictures of different size."""
    if first == second:
        return 0
    one, other = (
        np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)
        for file in (first, second)
    )
    return 255 if one.shape != other.shape else int(np.abs(one - other).max())
