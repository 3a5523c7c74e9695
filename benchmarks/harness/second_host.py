"""A further denoiser for a fleet, as on another host."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.harness.fleet import OwnFleet
from services.fleet.plan.processes import Crew
from services.fleet.supervisor.running import START_SECONDS
from services.fleet.supervisor.supervisor import supervised
from shared.bus.discovery import ready_pids

REACHABLE: Final = {"DARKROOM_TENSOR_HOST": "127.0.0.1"}
"""In the environment of the fleet: its tensors can be pulled from outside of its directories."""


@asynccontextmanager
async def second_host(own: OwnFleet) -> AsyncIterator[None]:
    """While it is open, `own` has a denoiser more, that is told the same as the first one, but has
    directories of its own for arenas and activation caches. It shares the bus with the others
    alone, and pulls tensors over TCP. Raises `Misconfigured` if it does not start."""
    first = next(c.spec for c in own.fleet.children if c.spec.service == "denoiser")
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as here,
        tempfile.TemporaryDirectory(
            prefix="darkroom-benchmark-", dir=own.arenas.parent.parent
        ) as memory,
    ):
        environment = {
            **first.environment,
            "DARKROOM_ARENA_DIR": str(Path(memory) / "arenas"),
            "DARKROOM_TEMPLATE_DIR": str(Path(here) / "templates"),
        }
        spec = replace(first, name=f"{first.name}-elsewhere", environment=environment)
        async with supervised(
            Crew([spec]), lambda: ready_pids(own.fleet.bus), Path(here) / "logs"
        ) as supervisor:
            await supervisor.ready(START_SECONDS)
            yield
