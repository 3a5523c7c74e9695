"""What a user with one job at a time has of a fleet that somebody else fills."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from benchmarks.harness.numbers import percentile
from benchmarks.harness.program import Results
from shared.client import Darkroom, new_job_id
from shared.client.job import Job
from shared.errors import DarkroomError
from shared.messages import GenerationRequest

HEAVY_STEPS: Final = 50
PROMPT: Final = "a large green star top and a small yellow ring right on black"
PAUSE_SECONDS: Final = 0.3
"""Between an answer and the next request."""
SETTLED_SECONDS: Final = 2.0
"""After which the heavy user's jobs fill the fleet."""


async def light_beside_heavy(darkroom: Darkroom, steps: int, jobs: int, heavy: int) -> Results:
    """`jobs` of a light user alone, and as many beside `heavy` of another one's."""
    alone = await _one_by_one(darkroom, steps, jobs)
    async with _heavy_user(darkroom, heavy):
        await asyncio.sleep(SETTLED_SECONDS)
        beside = await _one_by_one(darkroom, steps, jobs)
    p95 = percentile(alone, 95), percentile(beside, 95)
    return {
        "light_p95_ratio": round(p95[1] / p95[0], 3),
        "light_p95_seconds": [round(seconds, 3) for seconds in p95],
        "light_seconds": {
            "alone": [round(seconds, 3) for seconds in alone],
            "beside": [round(seconds, 3) for seconds in beside],
        },
    }


async def _one_by_one(darkroom: Darkroom, steps: int, jobs: int) -> list[float]:
    found = []
    for number in range(jobs):
        began = time.perf_counter()
        job = await darkroom.submit(_request("light", steps, number), progress=False)
        try:
            await job.images()
        finally:
            job.close()
        found.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_SECONDS)
    return found


@asynccontextmanager
async def _heavy_user(darkroom: Darkroom, jobs: int) -> AsyncIterator[None]:
    """All come at once; what is left is cancelled."""
    asked = [_request("heavy", HEAVY_STEPS, number) for number in range(jobs)]
    submitted = [await darkroom.submit(request, progress=False) for request in asked]
    try:
        yield
    finally:
        await asyncio.gather(*(_end(job) for job in submitted))


async def _end(job: Job) -> None:
    with suppress(DarkroomError):
        await job.cancel()
        await job.outcome()
    job.close()


def _request(user: str, steps: int, seed: int) -> GenerationRequest:
    return GenerationRequest(job_id=new_job_id(), prompt=PROMPT, steps=steps, seed=seed, user=user)
