"""Measures a running fleet for the simulator: pictures for one user, and for several at once."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Final

import msgspec

from loadgen.simulator.profiles.measured import (
    Cores,
    Drawn,
    JobTimes,
    Level,
    NodeTime,
    Steps,
    profile_of,
)
from loadgen.simulator.profiles.profile import Profile
from shared.bus.base import Bus
from shared.bus.service import PROCESSOR, data_of, service_of
from shared.client import Darkroom, new_job_id
from shared.errors import DarkroomError, JobCancelled, JobFailed
from shared.messages import GenerationRequest, JobDone

USERS: Final = (1, 2, 4, 8)
SECONDS: Final = 6.0
"""For which each number of users ask."""
WARM: Final = 3
"""Pictures before anything counts."""
ANSWER_SECONDS: Final = 0.5
STEPS: Final = 20
PROMPT: Final = "a large red circle left and a small blue square right on white"
BATCH: Final = 8
REFUSALS: Final = 100
"""Requests that cannot be in time, by which it is measured what a refusal takes."""
UNREACHABLE: Final = 0.02
"""Seconds until their deadline."""
OTHERS: Final = "others"


class _Engine(msgspec.Struct):
    steps: int
    row_steps: int
    step_seconds: float


class _Statistics(msgspec.Struct):
    """As much of a process's statistics as is of interest here."""

    engines: dict[str, _Engine] = {}
    processor_seconds: float = inf


Tell = Callable[[str], None]
Engines = Mapping[tuple[str, str], Steps]
"""By process and model, since the process started."""


async def measure(
    darkroom: Darkroom,
    bus: Bus,
    models: Mapping[str, Drawn],
    source: str,
    *,
    users: Sequence[int] = USERS,
    seconds: float = SECONDS,
    max_rows: int = BATCH,
    others: Callable[[], float] = time.process_time,
    tell: Tell = lambda text: None,
) -> Profile:
    """`bus`: on which services say their statistics. `others`: seconds of a core that were used so
    far by what is no service. Each model is asked alone; nobody else should ask meanwhile. Raises
    `InvalidRequest` for a model that draws nothing."""
    fleet = _Fleet(darkroom, bus, others)
    levels: dict[str, list[Level]] = {}
    for model, drawn in models.items():
        await _ask(darkroom, model, WARM, _count(WARM))
        for guided in {drawn.guided, False}:
            for number in users:
                level = await fleet.level(model, guided, number, seconds)
                levels.setdefault(model, []).append(level)
                tell(f"{model}, {number} users: {len(level.jobs)} pictures")
    cores = Cores(cores=len(os.sched_getaffinity(0)), refusal=await fleet.refusal())
    return profile_of("measured", source, models, levels, max_rows, cores)


@dataclass(frozen=True, slots=True)
class _Fleet:
    darkroom: Darkroom
    bus: Bus
    others: Callable[[], float]

    async def level(self, model: str, guided: bool, users: int, seconds: float) -> Level:
        before, used = await engines(self.bus), await self._processor()
        end = time.monotonic() + seconds
        each = await asyncio.gather(
            *(
                _ask(self.darkroom, model, user, lambda: time.monotonic() < end, guided)
                for user in range(users)
            )
        )
        using, after = await self._processor(), await engines(self.bus)
        return Level(
            users=users,
            forwards=2 if guided else 1,
            jobs=tuple(job for found in each for job in found),
            denoisers=tuple(
                _since(steps, before.get(key)) for key, steps in after.items() if key[1] == model
            ),
            processor={name: now - used.get(name, 0.0) for name, now in using.items()},
        )

    async def refusal(self) -> float:
        """Seconds of a core for a request that cannot be in time."""
        before = await self._processor()
        for _ in range(REFUSALS):
            request = GenerationRequest(
                job_id=new_job_id(),
                prompt=PROMPT,
                steps=STEPS,
                deadline=time.time() + UNREACHABLE,
            )
            with suppress(DarkroomError):
                await _times(self.darkroom, request)
        after = await self._processor()
        return (sum(after.values()) - sum(before.values())) / REFUSALS

    async def _processor(self) -> dict[str, float]:
        """Seconds of a core that were used so far, by service."""
        found = {OTHERS: self.others()}
        for answer in await self.bus.gather("$SRV.STATS", b"", ANSWER_SECONDS):
            service, used = service_of(answer), data_of(answer).get(PROCESSOR)
            if service and isinstance(used, int | float):
                found[service] = found.get(service, 0.0) + used
        return found


def _count(number: int) -> Callable[[], bool]:
    left = iter(range(number))
    return lambda: next(left, None) is not None


async def _ask(
    darkroom: Darkroom, model: str, user: int, more: Callable[[], bool], guided: bool = True
) -> list[JobTimes]:
    """One picture after another. One that fails is left out."""
    found: list[JobTimes] = []
    while more():
        request = GenerationRequest(
            job_id=new_job_id(),
            model=model,
            prompt=PROMPT,
            steps=STEPS,
            guidance=None if guided else 1.0,
            seed=user,
        )
        if (times := await _times(darkroom, request)) is not None:
            found.append(times)
    return found


async def _times(darkroom: Darkroom, request: GenerationRequest) -> JobTimes | None:
    """None of a job that was not drawn."""
    began = time.perf_counter()
    job = await darkroom.submit(request, progress=False)
    try:
        await job.images()
        took = time.perf_counter() - began
        outcome = await job.outcome()
    except (JobFailed, JobCancelled):
        return None
    finally:
        job.close()
    if not isinstance(outcome, JobDone):
        return None
    nodes = tuple(NodeTime(stage.kind, stage.waiting, stage.running) for stage in outcome.stages)
    return JobTimes(steps=outcome.steps, seconds=took, nodes=nodes)


async def engines(bus: Bus) -> Engines:
    """The steps of all denoisers that answer."""
    answers = await bus.gather("$SRV.STATS.darkroom-denoiser", b"", ANSWER_SECONDS)
    found = {}
    for answer in answers:
        instance = json.loads(answer.data)["id"]
        statistics = msgspec.convert(data_of(answer), _Statistics)
        for model, one in statistics.engines.items():
            found[instance, model] = Steps(
                steps=one.steps,
                row_steps=one.row_steps,
                seconds=one.step_seconds,
                processor=statistics.processor_seconds,
            )
    return found


def _since(now: Steps, before: Steps | None) -> Steps:
    if before is None:
        return now
    return Steps(
        steps=now.steps - before.steps,
        row_steps=now.row_steps - before.row_steps,
        seconds=now.seconds - before.seconds,
        processor=now.processor - before.processor if now.processor < inf else inf,
    )
