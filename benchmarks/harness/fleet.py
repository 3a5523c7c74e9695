"""A fleet for one measurement, in directories of its own, and jobs on it."""

import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from services.fleet.plan.machine import with_layout
from services.fleet.plan.processes import FleetOptions
from services.fleet.supervisor.running import Fleet, running_fleet
from shared.bus.base import Bus
from shared.bus.service import data_of
from shared.client import Darkroom
from shared.config import Settings
from shared.messages import GenerationRequest, ImageResult, JobDone, StepProgress

ANSWER_SECONDS: Final = 0.5
"""How long statistics are waited for."""


@dataclass(frozen=True, slots=True)
class OwnFleet:
    """`darkroom` is a client that is connected to the fleet over NATS at `url`; `weights`: the
    directory of converted weights."""

    darkroom: Darkroom
    url: str
    arenas: Path
    weights: Path
    fleet: Fleet

    def pids(self) -> list[int]:
        """Of all its processes, the bus included."""
        children = [child.pid for child in self.fleet.children]
        return [self.fleet.nats.pid, *(pid for pid in children if pid is not None)]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One job as its client saw it."""

    data: bytes
    """The image file."""
    done: JobDone
    steps: tuple[StepProgress, ...]
    submitted_at: float
    """Unix seconds."""
    seconds: float
    """From the call of `submit` until the image was in the client's hands."""
    ended_at: float
    """Unix seconds: the outcome was in the client's hands."""


@asynccontextmanager
async def own_fleet(
    model: str,
    denoisers: int | None = None,
    replicas: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
    beside: Sequence[str] = (),
) -> AsyncIterator[OwnFleet]:
    """What `darkroom up --model MODEL` runs, but for as many denoisers as asked for, which share
    the cores, and `replicas` of services; nothing of it is left behind. `environment`: variables
    for its processes, which are set in this one too while it runs. `beside`: more models."""
    asked = dict(replicas or {})
    if denoisers is not None:
        asked["denoiser"] = denoisers
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as here,
        tempfile.TemporaryDirectory(
            prefix="darkroom-benchmark-", dir=Settings().arena_dir.parent
        ) as shared,
        # The fleet hands its own environment on to its processes.
        patch.dict(
            os.environ,
            {
                **(environment or {}),
                "DARKROOM_ARENA_DIR": str(arenas := Path(shared) / "arenas"),
                "DARKROOM_TEMPLATE_DIR": str(Path(here) / "templates"),
                "DARKROOM_WEIGHTS_DIR": str(weights := Path(here) / "weights"),
            },
        ),
    ):
        options, _ = with_layout(FleetOptions(models=(model, *beside), replicas=asked))
        async with (
            running_fleet(
                options,
                data=Path(here) / "nats",
                logs=Path(here) / "logs",
            ) as fleet,
            Darkroom.connect(fleet.nats.url, "benchmark") as darkroom,
        ):
            yield OwnFleet(darkroom, fleet.nats.url, arenas, weights, fleet)


async def denoisers(bus: Bus) -> list[dict[str, Any]]:
    """What each says of itself (`services/denoiser/__main__.py`)."""
    replies = await bus.gather("$SRV.STATS.darkroom-denoiser", b"", ANSWER_SECONDS)
    return [dict(data_of(reply)) for reply in replies]


async def render(darkroom: Darkroom, request: GenerationRequest) -> Rendered:
    """Run one job of one image to its end. Raises what ended it otherwise."""
    submitted_at, began = time.time(), time.perf_counter()
    seconds = 0.0
    steps: list[StepProgress] = []
    job = await darkroom.submit(request)
    async for item in job.events():
        match item:
            case StepProgress():
                steps.append(item)
            case ImageResult():
                seconds = time.perf_counter() - began
    ended_at = time.time()
    [image] = await job.images()
    done = await job.outcome()
    assert isinstance(done, JobDone)  # or images() would have raised
    return Rendered(image.data, done, tuple(steps), submitted_at, seconds, ended_at)
