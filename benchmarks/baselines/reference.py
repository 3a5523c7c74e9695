"""What we compare with: diffusers' own pipeline in this process, as fast as it gets here."""

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final, Self, TypeVar

from benchmarks.baselines.pipeline import LAYOUTS, Guide, Layout, Pipeline, Setup
from benchmarks.harness.numbers import between
from services.vae.images import encode_image
from shared.messages import JobSpec

TRIALS: Final = 5
"""Images per memory format, to find the faster one."""

T = TypeVar("T")


def add_eager_baseline(parser: argparse.ArgumentParser) -> None:
    """For programs whose baseline runs our graph unless it is asked not to."""
    parser.add_argument(
        "--eager-baseline", action="store_true", help="run the baseline's UNet as diffusers does"
    )


class Baseline:
    """`StableDiffusionXLPipeline` of a model in float32 with `threads` torch threads; `graph` as in
    `Pipeline`.

    It runs on one thread of its own, so that the event loop stays free and torch keeps one team of
    workers. Use as an async context manager."""

    def __init__(self, source: str, threads: int, graph: bool = False) -> None:
        self._source = source
        self._threads = threads
        self._graph = graph
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="baseline")
        self._pipeline: Pipeline | None = None

    async def __aenter__(self) -> Self:
        self._pipeline = await self._run(
            lambda: Pipeline(self._source, Setup(self._threads), self._graph)
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._executor.shutdown()

    async def draw(self, spec: JobSpec) -> bytes:
        """The image file of `spec`."""
        return await self._run(lambda: self._draw(spec))

    async def adapt(self, loras: Mapping[Path, float], fuse: bool = False) -> None:
        """See `Pipeline.adapt`."""
        await self._run(lambda: self._loaded.adapt(loras, fuse))

    async def steer(self, guides: Sequence[Guide]) -> None:
        """See `Pipeline.steer`."""
        await self._run(lambda: self._loaded.steer(guides))

    async def settle(self, cores: Collection[int], threads: int) -> None:
        """From now on it computes with `threads` torch threads, on `cores`. To be called with all
        cores and threads first: torch's further threads stay where they were started."""
        setup = Setup(threads, self.layout)
        await self._run(lambda: os.sched_setaffinity(0, cores))
        await self._run(lambda: self._loaded.set_up(setup))

    async def step_seconds(self, spec: JobSpec) -> list[float]:
        """Of each step of `spec` but the first."""
        ends: list[float] = []
        await self._run(
            lambda: self._loaded.draw([spec], on_step=lambda: ends.append(time.perf_counter()))
        )
        return between(ends)

    async def median_step(
        self, spec: JobSpec, guides: Sequence[Guide], cores: Collection[int]
    ) -> float:
        """Seconds of a step of `spec`, steered by `guides`, on these cores with a thread for
        each."""
        await self.settle(cores, len(cores))
        await self.steer(guides)
        return median(await self.step_seconds(spec))

    async def choose_layout(self, spec: JobSpec, trials: int = TRIALS) -> dict[Layout, float]:
        """Try both ways to lay out the networks' weights on `spec`, and keep the faster one.
        Returns the median seconds of each."""
        setups = [Setup(self._threads, layout) for layout in LAYOUTS]
        found = await self._run(lambda: self._loaded.choose(setups, [[spec]], trials))
        return {setup.layout: seconds for setup, seconds in found.items()}

    @property
    def layout(self) -> Layout:
        return self._loaded.setup.layout

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # ------------------------------------------------------------------------ on the thread

    def _draw(self, spec: JobSpec) -> bytes:
        [pixels] = self._loaded.draw([spec])
        return encode_image(pixels, spec.output_format, spec.output_compression).data

    @property
    def _loaded(self) -> Pipeline:
        assert self._pipeline is not None, "used outside of its context"
        return self._pipeline
