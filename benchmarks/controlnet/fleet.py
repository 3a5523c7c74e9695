"""A fleet with one denoiser and a process for each ControlNet, every process where `cpu_pinning`
says, one torch thread in each: what is asked is what a ControlNet on another core costs, not what
this machine carries."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.controlnet.counters import Counters
from benchmarks.harness import requests
from benchmarks.harness.cpu_pinning import CpuPinning, cpu_pinning, pin
from benchmarks.harness.fleet import OwnFleet, Rendered, own_fleet, render
from benchmarks.harness.numbers import between
from benchmarks.harness.processes import child
from shared.bus.discovery import ready_pids
from shared.bus.service import data_of
from shared.client import Darkroom
from shared.errors import Misconfigured
from shared.messages import GenerationRequest

START_SECONDS: Final = 300.0
ANSWER_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.1
"""Pause between two looks who is ready."""
LOG_BYTES: Final = 4000
"""Of a log, shown when its process does not start."""


@dataclass(frozen=True, slots=True)
class Control:
    """The process of one ControlNet."""

    process: asyncio.subprocess.Process
    log: Path


@dataclass(frozen=True, slots=True)
class ControlFleet:
    own: OwnFleet
    cpu_pinning: CpuPinning
    controls: Sequence[Control]

    @property
    def darkroom(self) -> Darkroom:
        return self.own.darkroom

    def pids(self) -> list[int]:
        """Of all its processes, the bus included."""
        return [*self.own.pids(), *(control.process.pid for control in self.controls)]

    async def engine(self) -> dict[str, Any]:
        """The `EngineStatistics` of the denoiser's only model."""
        subject = "$SRV.STATS.darkroom-denoiser"
        answer = await self.own.fleet.bus.request(subject, b"", ANSWER_SECONDS)
        engines: Any = data_of(answer)["engines"]
        [found] = engines.values()
        return dict(found)

    async def looked_at(self, request: GenerationRequest) -> tuple[Rendered, float, Counters]:
        """An image of `request`, its median seconds of a step, and what the denoiser asked."""
        before = await self.engine()
        drawn = await render(self.darkroom, requests.again(request))
        asked = Counters.between(before, await self.engine())
        return drawn, median(between([step.at for step in drawn.steps])), asked


@asynccontextmanager
async def control_fleet(
    model: str, controls: Sequence[str], loras: Sequence[str] | None = None
) -> AsyncIterator[ControlFleet]:
    """A fleet that serves `model` with the ControlNets whose directories are `controls`, and the
    LoRAs in directories `loras` (None: as everywhere). Raises `Misconfigured`, with the end of a
    log, if a ControlNet does not start."""
    environment = {"DARKROOM_CONTROLS": os.pathsep.join(controls), "DARKROOM_THREADS": "1"}
    if loras is not None:
        environment["DARKROOM_LORAS"] = os.pathsep.join(loras)
    everywhere = sorted(os.sched_getaffinity(0))
    found = cpu_pinning(everywhere, len(controls))
    async with (
        own_fleet(model, 1, {"controlnet": 0}, environment) as own,
        AsyncExitStack() as stack,
    ):
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-benchmark-")))
        inherited = own.fleet.children[0].spec.environment
        processes = [
            await stack.enter_async_context(_control(source, inherited, logs / f"{number}.log"))
            for number, source in enumerate(controls)
        ]
        fleet = ControlFleet(own, found, processes)
        await _ready(fleet)
        _settle(fleet)
        yield fleet


def _settle(fleet: ControlFleet) -> None:
    for pid in fleet.pids():
        pin(pid, fleet.cpu_pinning.others)
    for service in fleet.own.fleet.children:
        if service.spec.service == "denoiser" and service.pid is not None:
            pin(service.pid, {fleet.cpu_pinning.denoiser})
    for control, core in zip(fleet.controls, fleet.cpu_pinning.controls, strict=True):
        pin(control.process.pid, {core})


async def _ready(fleet: ControlFleet) -> None:
    wanted = {control.process.pid for control in fleet.controls}
    try:
        async with asyncio.timeout(START_SECONDS):
            while not wanted <= set(await ready_pids(fleet.own.fleet.bus)):
                for control in fleet.controls:
                    if control.process.returncode is not None:
                        raise Misconfigured(f"a ControlNet has ended: {_end_of(control.log)}")
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        logs = "\n".join(_end_of(control.log) for control in fleet.controls)
        raise Misconfigured(f"no ControlNets within {START_SECONDS:g} s: {logs}") from error


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_BYTES:]


@asynccontextmanager
async def _control(source: str, inherited: Mapping[str, str], log: Path) -> AsyncIterator[Control]:
    """A process that holds the ControlNet `source` alone, and `inherited` settings."""
    command = (sys.executable, "-m", "services.controlnet")
    environment = {**inherited, "DARKROOM_CONTROLS": source}
    with log.open("wb") as output:
        async with child(*command, env=environment, stdout=output, stderr=output) as process:
            yield Control(process, log)
