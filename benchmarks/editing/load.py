"""Edits that one side is asked for: all at once, or one by one at given moments."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.editing.sides import Side
from shared.messages import GenerationRequest


@dataclass(frozen=True, slots=True)
class Load:
    """`seconds`: from the beginning until the last picture is there. For each edit: `latencies`,
    the seconds from the moment at which it is due until its picture is there, and the share of its
    tokens that was computed."""

    seconds: float
    latencies: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


async def all_at_once(side: Side, wanted: Sequence[GenerationRequest]) -> Load:
    return await arriving(side, wanted, [0.0] * len(wanted))


async def arriving(side: Side, wanted: Sequence[GenerationRequest], due: Sequence[float]) -> Load:
    """Each of `wanted` is asked for when it is due, in seconds from now, whatever became of those
    before. Raises what any of them ended with."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(request: GenerationRequest, at: float) -> tuple[float, float]:
        await asyncio.sleep(began + at - loop.time())
        edited = await side.edit(request)
        return loop.time() - began - at, edited.share

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*pair)) for pair in zip(wanted, due, strict=True)]
    latencies, shares = zip(*(task.result() for task in tasks), strict=True)
    return Load(loop.time() - began, latencies, shares)
