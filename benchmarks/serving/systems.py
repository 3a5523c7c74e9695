"""The three systems under load, each with processes of its own, behind one HTTP address."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.baselines.__main__ import POLICIES
from benchmarks.harness.fleet import own_fleet
from shared.bus.base import Bus
from shared.bus.service import data_of
from shared.errors import Misconfigured
from shared.host.die_with_parent import command_that_dies_with_us

OURS: Final = "darkroom"
BASELINES: Final = tuple(sorted(POLICIES))
START_SECONDS: Final = 300.0
STOP_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 0.3
"""How long denoisers may take to say how many steps they took."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Forwards of the network since the start, and the rows in them all together."""

    steps: int
    rows: int


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
async def darkroom(model: str, denoisers: int | None) -> AsyncIterator[System]:
    """A fleet with as many denoisers, or with the layout of `darkroom up`; nothing of it is left
    behind."""
    async with own_fleet(model, denoisers) as own:
        count = sum(child.spec.service == "denoiser" for child in own.fleet.children)

        def pids() -> list[int]:
            children = [child.pid for child in own.fleet.children]
            return [own.fleet.nats.pid, *(pid for pid in children if pid is not None)]

        yield System(
            OURS,
            f"http://{own.fleet.http}",
            f"{count} denoiser{'s' if count > 1 else ''}",
            pids,
            lambda: _steps(own.fleet.bus),
            count,
        )


@asynccontextmanager
async def baseline(kind: str, model: str, eager: bool = False) -> AsyncIterator[System]:
    """A server of `benchmarks.baselines`, warm when the context is entered. Raises `Misconfigured`
    if it cannot be got to work."""
    options = ("--eager",) if eager else ()
    command = (sys.executable, "-m", "benchmarks.baselines", kind, "--model", model, *options)
    process = await asyncio.create_subprocess_exec(
        *command_that_dies_with_us(command, signal.SIGTERM), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            url, _, setup = (await process.stdout.readline()).decode().strip().partition(" ")
        if not url:
            raise Misconfigured(f"the baseline {kind} ended before it listened")
        yield System(kind, url, setup, lambda: [process.pid])
    except TimeoutError as error:
        raise Misconfigured(f"the baseline {kind} is not ready in {START_SECONDS:g} s") from error
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _steps(bus: Bus) -> Steps:
    """Of all denoisers together."""
    answers = await bus.gather("$SRV.STATS.darkroom-denoiser", b"", ANSWER_SECONDS)
    engines = [json.loads(json.dumps(data_of(answer)["engines"])) for answer in answers]
    found = [engine for of_models in engines for engine in of_models.values()]
    return Steps(sum(e["steps"] for e in found), sum(e["row_steps"] for e in found))
