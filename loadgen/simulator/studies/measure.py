"""Measures a running fleet for the simulator: pictures for one user, and for several at once."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from loadgen.simulator.profiles.measured import Drawn, JobTimes, Level, NodeTime, Steps, profile_of
from loadgen.simulator.profiles.profile import Profile
from shared.bus.base import Bus
from shared.bus.service import data_of
from shared.client import Darkroom, new_job_id
from shared.errors import JobCancelled, JobFailed
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


class _Engine(msgspec.Struct):
    steps: int
    row_steps: int
    step_seconds: float


class _Statistics(msgspec.Struct):
    """As much of a denoiser's statistics as is of interest here."""

    engines: dict[str, _Engine] = {}


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
    tell: Tell = lambda text: None,
) -> Profile:
    """`bus`: on which services say their statistics. Each model is asked alone; nobody else should
    ask meanwhile. Raises `InvalidRequest` for a model that draws nothing."""
    levels: dict[str, list[Level]] = {}
    for model, drawn in models.items():
        await _ask(darkroom, model, WARM, _count(WARM))
        for guided in {drawn.guided, False}:
            for number in users:
                level = await _level(darkroom, bus, model, guided, number, seconds)
                levels.setdefault(model, []).append(level)
                tell(f"{model}, {number} users: {len(level.jobs)} pictures")
    return profile_of("measured", source, models, levels, max_rows)


async def _level(
    darkroom: Darkroom, bus: Bus, model: str, guided: bool, users: int, seconds: float
) -> Level:
    before = await engines(bus)
    end = time.monotonic() + seconds
    each = await asyncio.gather(
        *(
            _ask(darkroom, model, user, lambda: time.monotonic() < end, guided)
            for user in range(users)
        )
    )
    after = await engines(bus)
    taken = tuple(_since(steps, before.get(key)) for key, steps in after.items() if key[1] == model)
    jobs = tuple(job for found in each for job in found)
    return Level(users=users, forwards=2 if guided else 1, jobs=jobs, denoisers=taken)


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
                steps=one.steps, row_steps=one.row_steps, seconds=one.step_seconds
            )
    return found


def _since(now: Steps, before: Steps | None) -> Steps:
    if before is None:
        return now
    return Steps(
        steps=now.steps - before.steps,
        row_steps=now.row_steps - before.row_steps,
        seconds=now.seconds - before.seconds,
    )
