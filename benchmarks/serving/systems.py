"""The three systems under load, each with processes of its own, behind one HTTP address."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.baselines.__main__ import POLICIES
from benchmarks.harness.fleet import denoisers, own_fleet
from benchmarks.harness.processes import child, first_line
from loadgen.outcomes.occupancy import Steps
from shared.bus.base import Bus
from shared.errors import Misconfigured

OURS: Final = "darkroom"
BASELINES: Final = tuple(sorted(POLICIES))
START_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class System:
    """`pids`: all its processes. `steps`: None for a system that does not tell."""

    name: str
    url: str
    setup: str
    """How it uses the machine, in words."""
    pids: Callable[[], Sequence[int]]
    steps: Callable[[], Awaitable[Steps]] | None = None
    denoisers: int = 1
    """Processes that run the network."""


@asynccontextmanager
async def darkroom(model: str, count: int | None) -> AsyncIterator[System]:
    """A fleet with `count` denoisers, or with the layout of `darkroom up`; nothing of it is left
    behind."""
    async with own_fleet(model, count) as own:
        running = sum(child.spec.service == "denoiser" for child in own.fleet.children)
        yield System(
            OURS,
            f"http://{own.fleet.http}",
            f"{running} denoiser{'s' if running > 1 else ''}",
            own.pids,
            lambda: _steps(own.fleet.bus),
            running,
        )


@asynccontextmanager
async def baseline(kind: str, model: str, eager: bool = False) -> AsyncIterator[System]:
    """A server of `benchmarks.baselines`, warm when the context is entered. Raises `Misconfigured`
    if it cannot be got to work."""
    options = ("--eager",) if eager else ()
    command = (sys.executable, "-m", "benchmarks.baselines", kind, "--model", model, *options)
    async with child(*command, stdout=asyncio.subprocess.PIPE) as process:
        try:
            async with asyncio.timeout(START_SECONDS):
                url, _, setup = (await first_line(process)).partition(" ")
        except TimeoutError as error:
            reason = f"is not ready in {START_SECONDS:g} s"
            raise Misconfigured(f"the baseline {kind} {reason}") from error
        if not url:
            raise Misconfigured(f"the baseline {kind} ended before it listened")
        yield System(kind, url, setup, lambda: [process.pid])


async def _steps(bus: Bus) -> Steps:
    """Of all denoisers together."""
    found = [engine for one in await denoisers(bus) for engine in one["engines"].values()]
    return Steps(sum(e["steps"] for e in found), sum(e["row_steps"] for e in found))
