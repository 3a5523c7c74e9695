"""`darkroom render`: one job, from a prompt to files, on a running fleet or on its own."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec

from services.fleet.cli.progress import Display
from services.fleet.cli.stages import Stages
from services.fleet.plan.processes import FleetOptions, catalogue_of, served_models
from services.fleet.supervisor.running import running_fleet
from shared.client import Darkroom, fleet_state
from shared.client.job import Job
from shared.errors import DarkroomError, InvalidRequest
from shared.jobs.travel import fitted_to_travel
from shared.jobs.validate import validate
from shared.messages import (
    GenerationRequest,
    ImageFormat,
    ImageResult,
    JobDone,
    NodeProgress,
    StepProgress,
)
from shared.models.names import VARIABLE, parse_aliases
from shared.security.keys import ANONYMOUS, Credentials
from shared.shipped import MODELS, located

CANCEL_SECONDS: Final = 5.0
"""How long a cancellation may take before we leave without an answer."""

FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished job, and the seconds spent around it."""

    done: JobDone
    files: tuple[Path, ...]
    fleet_seconds: float | None
    """Starting a fleet for this job alone; None on one that ran already."""
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Place:
    """A fleet's bus, and who we are on it; None: what the environment says."""

    url: str
    credentials: Credentials | None = None


def image_format(out: Path) -> ImageFormat:
    """What the suffix of `out` asks for; its directory is made. Raises `InvalidRequest`, so that
    nothing is drawn that could not be saved."""
    if out.suffix.lower() not in FORMATS:
        raise InvalidRequest("--out", str(out), "a file name that ends in " + ", ".join(FORMATS))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        allowed = f"a file in a directory that can be made ({error.strerror})"
        raise InvalidRequest("--out", str(out), allowed) from error
    if not os.access(out.parent, os.W_OK):
        raise InvalidRequest("--out", str(out), "a file in a directory you may write to")
    return cast(ImageFormat, FORMATS[out.suffix.lower()])


def file_names(out: Path, images: int) -> tuple[Path, ...]:
    """`out` itself for one image, `out-0`, `out-1`, … for several."""
    if images == 1:
        return (out,)
    return tuple(out.with_stem(f"{out.stem}-{index}") for index in range(images))


async def render(
    request: GenerationRequest, out: Path, url: str | None, display: Display
) -> Rendered:
    """Run `request`, and save its images, with another suffix than that of `out` if the request
    leaves their format open. Raises what ended the job otherwise; when cancelled,
    cancels the job first."""
    began = time.monotonic()
    async with _fleet_for(request, url, display) as (request, place, fleet_seconds):
        async with Darkroom.connect(
            place.url, name="darkroom-render", credentials=place.credentials
        ) as darkroom:
            job = await darkroom.submit(request)
            stages = Stages(request.n, len(request.controls), request.image is not None)
            done, images = await _follow(job, stages, display)
        if request.output_format is None:
            out = out.with_suffix(f".{images[0].output_format}")
        files = file_names(out, len(images))
        await asyncio.to_thread(_save, images, files)
    return Rendered(done, files, fleet_seconds, time.monotonic() - began)


@asynccontextmanager
async def _fleet_for(
    request: GenerationRequest, url: str | None, display: Display
) -> AsyncIterator[tuple[GenerationRequest, Place, float | None]]:
    """The request as the fleet understands it, where the fleet is, and how long starting took."""
    running = fleet_state.running_at(url)
    if running:
        place = Place(url or running.nats_url, running.credentials("client"))
        yield _with_whole_path(request), place, None
        return
    if url:
        yield request, Place(url), None
        return
    sources, request = _own_models(request)
    # Refused here, a bad request costs nobody the start of a fleet.
    catalogue = await asyncio.to_thread(catalogue_of, sources)
    if (card := catalogue.wanted(request.model)) is not None:
        request = await asyncio.to_thread(fitted_to_travel, request, card)
    validate(request, catalogue)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as directory:
        async with running_fleet(
            FleetOptions(models=sources),
            data=Path(directory) / "nats",
            logs=Path(directory) / "logs",
            changed=display.fleet,
        ) as fleet:
            yield request, Place(fleet.nats.url, ANONYMOUS), fleet.start_seconds


def _with_whole_path(request: GenerationRequest) -> GenerationRequest:
    """The fleet was started elsewhere, perhaps: a directory means the same there as here."""
    if request.model is None or "/" not in request.model or not Path(request.model).is_dir():
        return request
    return msgspec.structs.replace(request, model=located(request.model))


def _own_models(request: GenerationRequest) -> tuple[tuple[str, ...], GenerationRequest]:
    """What a fleet started for `request` alone serves. `--model` may name a directory, a hub id, or
    a model that ships; an alias is one of what is served by default."""
    model = request.model
    if model in parse_aliases(os.environ.get(VARIABLE, "")):
        return served_models((), os.environ), request
    if model is not None and (Path(model).is_dir() or "/" in model or model in MODELS):
        return served_models((model,), os.environ), msgspec.structs.replace(request, model=None)
    return served_models((), os.environ), request


async def _follow(job: Job, stages: Stages, display: Display) -> tuple[JobDone, list[ImageResult]]:
    display.event(stages, None)
    try:
        async for event in job.events():
            if isinstance(event, NodeProgress | StepProgress):
                display.event(stages, event)
        finished = await job.images()
        done = await job.outcome()
    except asyncio.CancelledError:
        await _cancel(job)
        raise
    assert isinstance(done, JobDone)  # or images() would have raised
    stages.finish()
    display.event(stages, None)
    return done, finished


async def _cancel(job: Job) -> None:
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await job.cancel()
    except (TimeoutError, DarkroomError):
        pass  # we leave either way; a job that nobody awaits ends by itself


def _save(images: list[ImageResult], files: tuple[Path, ...]) -> None:
    for image, file in zip(images, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image.data)
