"""diffusers' pipeline in processes of its own, each of which draws one batch after another."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context, parent_process

import diffusers

from benchmarks.baselines.inpainting import PIPELINES
from benchmarks.baselines.pipeline import LAYOUTS, Layout, Pipeline, Setup
from services.vae.images import encode_image
from shared.messages import JobSpec
from shared.models.families.registry import family_of

_opened: list[Pipeline] = []
"""In such a process: its own."""


@asynccontextmanager
async def pipeline_processes(
    source: str, count: int, threads: int
) -> AsyncIterator[list[ProcessPoolExecutor]]:
    """`count` executors of one process each, in which `drawn` and `tried` may run; it loads the
    pipeline of `source` before, for `threads` torch threads. What they draw is awaited at the
    end."""
    context = get_context("forkserver")
    context.set_forkserver_preload([Pipeline.__module__, *_modules(source)])  # once for all
    executors = [
        ProcessPoolExecutor(1, mp_context=context, initializer=_open, initargs=(source, threads))
        for _ in range(count)
    ]
    try:
        yield executors
    finally:
        for executor in executors:
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)


def _modules(source: str) -> list[str]:
    """Those of diffusers that have the pipelines of this model; they import what these consist of,
    and diffusers itself imports none of them."""
    pipeline = family_of(source).pipeline
    names = [name for name in (pipeline, PIPELINES.get(pipeline)) if name]
    return [getattr(diffusers, name).__module__ for name in names]


def drawn(specs: Sequence[JobSpec]) -> list[bytes]:
    """Files of the images that `Pipeline.draw` draws."""
    pixels = _opened[0].draw(specs)
    return [
        encode_image(one, spec.output_format, spec.output_compression).data
        for one, spec in zip(pixels, specs, strict=True)
    ]


def tried(samples: Sequence[Sequence[JobSpec]], trials: int) -> tuple[Layout, list[float]]:
    """The faster layout of weights for these batches, which is kept; then the median seconds of
    each batch."""
    [pipeline] = _opened
    threads = pipeline.setup.threads
    pipeline.choose([Setup(threads, layout) for layout in LAYOUTS], samples, trials)
    seconds = [pipeline.choose([pipeline.setup], [one], trials) for one in samples]
    return pipeline.setup.layout, [took[pipeline.setup] for took in seconds]


def _open(source: str, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _opened.append(Pipeline(source, Setup(threads)))


def _end_with_parent() -> None:
    """A pool's processes wait for work even if nobody is left to give them any."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
