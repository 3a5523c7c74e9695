"""What we compare with: diffusers' own pipeline in this process, as fast as it gets here."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import diffusers
import numpy as np
import torch
import transformers

from services.vae.images import encode_image
from shared.messages import JobSpec
from shared.samplers import SAMPLERS

TRIALS: Final = 5
"""Images per memory format, to find the faster one."""

T = TypeVar("T")


class Baseline:
    """`StableDiffusionXLPipeline` of a model in float32 with `threads` torch threads.

    It runs on one thread of its own, so that the event loop stays free and torch keeps one team of
    workers. Use as an async context manager."""

    def __init__(self, source: str, threads: int) -> None:
        self._source = source
        self._threads = threads
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="baseline")
        self._pipeline: Any = None
        self._scheduler_config: Any = None
        self.memory_format = "contiguous"

    async def __aenter__(self) -> Self:
        await self._run(self._load)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown()

    async def draw(self, spec: JobSpec) -> bytes:
        """The image file of `spec`."""
        return await self._run(lambda: self._draw(spec))

    async def choose_memory_format(self, spec: JobSpec, trials: int = TRIALS) -> dict[str, float]:
        """Try both ways to lay out the networks' weights on `spec`, and keep the faster one.
        Returns the median seconds of each."""
        seconds = await self._run(lambda: self._try_formats(spec, trials))
        fastest = min(seconds, key=lambda name: seconds[name])
        await self._run(lambda: self._lay_out(fastest))
        return seconds

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # ------------------------------------------------------------------------ on the thread

    def _load(self) -> None:
        torch.set_num_threads(self._threads)
        _be_quiet()
        self._pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
            self._source,
            dtype=torch.float32,
            use_safetensors=True,
            add_watermarker=False,
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._scheduler_config = self._pipeline.scheduler.config

    def _try_formats(self, spec: JobSpec, trials: int) -> dict[str, float]:
        seconds: dict[str, list[float]] = {"contiguous": [], "channels_last": []}
        for _ in range(trials):
            for name, found in seconds.items():
                self._lay_out(name)
                self._draw(spec)
                found.append(self._timed(spec))
        return {name: median(found) for name, found in seconds.items()}

    def _timed(self, spec: JobSpec) -> float:
        began = time.perf_counter()
        self._draw(spec)
        return time.perf_counter() - began

    def _lay_out(self, name: str) -> None:
        layout = torch.channels_last if name == "channels_last" else torch.contiguous_format
        self._pipeline.unet.to(memory_format=layout)
        self._pipeline.vae.to(memory_format=layout)
        self.memory_format = name

    @torch.inference_mode()
    def _draw(self, spec: JobSpec) -> bytes:
        sampler = SAMPLERS[spec.sampler]
        self._pipeline.scheduler = getattr(diffusers, sampler.scheduler).from_config(
            self._scheduler_config, **sampler.settings
        )
        image = self._pipeline(
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance,
            width=spec.width,
            height=spec.height,
            generator=torch.Generator("cpu").manual_seed(spec.seed),
        ).images[0]
        pixels = torch.from_numpy(np.array(image))
        return encode_image(pixels, spec.output_format, spec.output_compression)


def _be_quiet() -> None:
    """A scheduler made from another one's config warns of settings it does not know; parts of the
    pipeline that we never use warn of packages they miss."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
