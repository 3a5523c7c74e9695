"""A fleet and diffusers' pipeline, both with ControlNets and with LoRAs that neither has seen."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.baselines.reference import Baseline
from benchmarks.controlnet.fleet import ControlFleet
from benchmarks.controlnet.requests import guides, with_controls
from benchmarks.harness import requests
from benchmarks.harness.fleet import render
from benchmarks.harness.large_model import lora_file
from benchmarks.harness.processes import cpu_seconds
from benchmarks.lora import with_loras
from benchmarks.swift.model import Asked
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue

WAYS = ("apart", "fused")
"""To have LoRAs in diffusers: beside the weights, or in them."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Seconds until the image was there, processor seconds of all processes of that side, and the
    steps that were taken before all LoRAs had joined."""

    seconds: float
    cpu: float
    late: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds to load and set one LoRA, and the median step with it."""

    adapt: float
    step: float

    def image(self, steps: int) -> float:
        return self.adapt + steps * self.step


class ColdSides:
    """`model`: the directory of the only model; `lora_directory`: the fleet's directory of
    LoRAs."""

    def __init__(
        self,
        fleet: ControlFleet,
        baseline: Baseline,
        model: Path,
        catalogue: Catalogue,
        lora_directory: Path,
        nbytes: int,
    ) -> None:
        self.fleet, self._baseline, self.model = fleet, baseline, model
        self._catalogue, self._lora_directory, self._nbytes = catalogue, lora_directory, nbytes
        self._numbers = itertools.count()
        self.fuse = False
        self.cpu_pinning = fleet.cpu_pinning
        self.one_core = [self.cpu_pinning.denoiser]
        self.all_cores = self.cpu_pinning.every

    @asynccontextmanager
    async def loras(self, count: int) -> AsyncIterator[Mapping[str, Path]]:
        """New files by name. They are gone afterwards, lest the disk holds all that ever were."""
        paths = [
            self._lora_directory / f"cold_{next(self._numbers)}.safetensors" for _ in range(count)
        ]
        for number, path in enumerate(paths):
            await asyncio.to_thread(lora_file, path, self.model, self._nbytes, number)
        try:
            yield {path.stem: path for path in paths}
        finally:
            for path in paths:
                path.unlink()

    def request(
        self, asked: Asked, loras: Sequence[str] = (), seed: int = 0, guidance: float | None = None
    ) -> GenerationRequest:
        [plain] = requests.plain(1, asked.steps, seed)
        plain = msgspec.structs.replace(plain, lora_late_steps=asked.late, guidance=guidance)
        controls = list(self._catalogue.controls)[: asked.controls]
        with_control = with_controls(plain, *((name, {}) for name in controls))
        return with_loras(with_control, *((name, 1.0) for name in loras))

    async def ours(self, request: GenerationRequest) -> Drawn:
        before = cpu_seconds(self.fleet.pids())
        drawn = await render(self.fleet.darkroom, requests.again(request))
        cpu = cpu_seconds(self.fleet.pids()) - before
        return Drawn(drawn.seconds, cpu, late_steps(drawn.done.approximations))

    async def pipeline(
        self, request: GenerationRequest, loras: Mapping[str, Path], on: Sequence[int]
    ) -> Drawn:
        """By diffusers, on these cores with a thread for each. From the request on: its LoRAs are
        loaded, but those of the image before are removed already."""
        await self._baseline.settle(on, len(on))
        await self._baseline.adapt({})
        spec = validate(request, self._catalogue)
        cpu, began = cpu_seconds([os.getpid()]), time.perf_counter()
        if loras:
            await self._baseline.adapt(dict.fromkeys(loras.values(), 1.0), self.fuse)
        await self._baseline.steer(guides(request, self._catalogue))
        await self._baseline.draw(spec)
        return Drawn(time.perf_counter() - began, cpu_seconds([os.getpid()]) - cpu)

    async def prepare(self, steps: int, probe: Asked) -> dict[str, Trial]:
        """diffusers' faster layout of weights, and its faster way to have LoRAs for so many
        `steps`, tried on one core with images of `probe`."""
        await self._baseline.settle(self.all_cores, len(self.all_cores))
        spec = validate(self.request(probe), self._catalogue)
        await self._baseline.choose_layout(spec, trials=1)
        await self._trial(spec, fuse=False)  # the first one ever imports PEFT
        await self._baseline.settle(self.one_core, 1)
        trials = {way: await self._trial(spec, way == "fused") for way in WAYS}
        self.fuse = trials["fused"].image(steps) < trials["apart"].image(steps)
        return trials

    async def step(self, request: GenerationRequest) -> float:
        """Median seconds of a step by diffusers on one core, without LoRAs."""
        await self._baseline.adapt({})
        spec, steering = validate(request, self._catalogue), guides(request, self._catalogue)
        return await self._baseline.median_step(spec, steering, self.one_core)

    async def _trial(self, spec: JobSpec, fuse: bool) -> Trial:
        async with self.loras(1) as files:
            began = time.perf_counter()
            await self._baseline.adapt(dict.fromkeys(files.values(), 1.0), fuse)
            adapt = time.perf_counter() - began
            step = median(await self._baseline.step_seconds(spec))
            await self._baseline.adapt({})
        return Trial(adapt, step)


def late_steps(approximations: Sequence[str]) -> int:
    """After how many steps the last LoRA joined, as a job's outcome names what was not exact."""
    found = [text.rpartition("step ")[2] for text in approximations if text.startswith("late_lora")]
    return max((int(step) - 1 for step in found), default=0)
