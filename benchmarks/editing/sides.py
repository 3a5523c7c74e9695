"""Who edits: a fleet in either mask mode, and diffusers, one edit at a time or in batches."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from benchmarks.baselines.batching import Policy
from benchmarks.baselines.drawing import Queue, drawing
from benchmarks.baselines.inpainting import edit_job
from benchmarks.baselines.processes import drawn, pipeline_processes, tried
from benchmarks.editing.orders import in_mode
from benchmarks.harness.fleet import own_fleet, render
from shared.client import Darkroom
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue

OURS: Final = ("cached", "exact")
"""Mask modes."""
BASELINES: Final = ("serial", "batched")
SIDES: Final = (*OURS, *BASELINES)
BATCHES: Final = (2, 4)
"""Of which the better one is the largest batch of `batched`. So few edits wait at a time that two
pipelines could not both fill larger ones."""
TRIED_STEPS: Final = 2
TEMPLATE_BYTES: Final = 4 * 1024**3
"""In memory: more than all activation caches have."""
SHARE: Final = re.compile(r"mask_cached: image \d+, ([\d.]+) of tokens")
"""In what a job says it did not compute exactly."""


class Edited(NamedTuple):
    """The picture's file, and the share of its tokens that was computed; 1: without an activation
    cache."""

    data: bytes
    share: float = 1.0


class Side(Protocol):
    async def edit(self, request: GenerationRequest) -> Edited:
        """`request` as it is, whichever mask mode it has."""


@dataclass(frozen=True, slots=True)
class Ours:
    darkroom: Darkroom
    mode: str

    async def edit(self, request: GenerationRequest) -> Edited:
        rendered = await render(self.darkroom, in_mode(request, self.mode))
        return Edited(rendered.data, computed_share(rendered.done.approximations))


@dataclass(frozen=True, slots=True)
class Theirs:
    queue: Queue[bytes]
    catalogue: Catalogue

    async def edit(self, request: GenerationRequest) -> Edited:
        job = edit_job(request, self.catalogue)
        [data] = await self.queue.images(request.job_id, job)
        return Edited(data)


@dataclass(frozen=True, slots=True)
class Sides:
    """All of them, by name, on the same cores, and how diffusers was set up."""

    by_name: Mapping[str, Side]
    layouts: tuple[str, ...]
    """Of the weights, in each pipeline's process."""
    batch: int
    """The largest of `batched`."""


@asynccontextmanager
async def open_sides(
    model: str, denoisers: int, threads: int, sample: GenerationRequest
) -> AsyncIterator[Sides]:
    """A fleet with so many denoisers, and as many pipelines, in processes with `threads` torch
    threads each; warm. Those of them that are not asked for anything are idle. Who tries how large
    batches are best edits `sample`."""
    catalogue = Catalogue.load([model])
    environment = {
        "DARKROOM_THREADS": str(threads),
        "DARKROOM_CONTROLS": "",
        "DARKROOM_TEMPLATE_BYTES": str(TEMPLATE_BYTES),
    }
    async with AsyncExitStack() as stack:
        pipelines = await stack.enter_async_context(pipeline_processes(model, denoisers, threads))
        layouts, batch = await _prepare(pipelines, catalogue, sample)
        queues = {
            "serial": Policy(max_batch=1, window=0.0),
            "batched": Policy(max_batch=batch, window=0.0),
        }
        sides: dict[str, Side] = {}
        fleet = await stack.enter_async_context(
            own_fleet(model, denoisers, environment=environment)
        )
        for mode in OURS:
            sides[mode] = Ours(fleet.darkroom, mode)
        for name, policy in queues.items():
            queue = await stack.enter_async_context(drawing(drawn, pipelines, policy))
            sides[name] = Theirs(queue, catalogue)
        yield Sides(sides, layouts, batch)


async def _prepare(
    pipelines: Sequence[ProcessPoolExecutor], catalogue: Catalogue, sample: GenerationRequest
) -> tuple[tuple[str, ...], int]:
    """All pipelines have drawn every size of batch, with either layout of the weights: returned are
    those they kept, and the size with the most images per second."""
    job = edit_job(msgspec.structs.replace(sample, steps=TRIED_STEPS), catalogue)
    batches = [[job] * size for size in (1, *BATCHES)]
    loop = asyncio.get_running_loop()
    found = await asyncio.gather(
        *(loop.run_in_executor(pipeline, tried, batches, 1) for pipeline in pipelines)
    )
    layouts = tuple(layout for layout, _ in found)
    each = zip(BATCHES, zip(*(seconds[1:] for _, seconds in found), strict=True), strict=True)
    return layouts, min((sum(took) / size, size) for size, took in each)[1]


def computed_share(approximations: Sequence[str]) -> float:
    """Of an image's tokens, as its job's outcome names what was not exact; 1: all."""
    shares = [float(match[1]) for text in approximations if (match := SHARE.match(text))]
    return min(shares, default=1.0)
