"""Everything killed at once: supervisor, services and bus. What was acknowledged goes on with the
next fleet in the same directories, and of the last one no file is left."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from services.fleet.plan.checks import free_port
from shared.bus.nats import connect
from shared.bus.topology import TOPOLOGY
from tests.chaos.check.leaks import ownerless, pids_marked
from tests.chaos.fleet.fleets import ROOT, START_SECONDS, ChaosFleet, FleetPlan, directories
from tests.chaos.fleet.leader import READY
from tests.chaos.fleet.polling import until
from tests.chaos.trial import Trial
from tests.conftest import HANG_SECONDS

PAUSE_SECONDS: Final = (0.5, 3.0)
"""Of work before everything dies."""
HOST: Final = "127.0.0.1"


class Leader:
    """The process that everything else descends from. Implements `Broker`, which it brings."""

    replicas = 1

    def __init__(self, here: Path, arenas: Path, plan: FleetPlan) -> None:
        self._here = here
        self._port = free_port(HOST)
        self._command = (
            *(sys.executable, "-m", "tests.chaos.fleet.leader", str(here), str(arenas)),
            *(str(self._port), msgspec.json.encode(plan).decode()),
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self._port}"

    async def start(self) -> None:
        with (self._here / "leader.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, "PYTHONPATH": str(ROOT), "DARKROOM_CHAOS": self._here.name},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            said = await self._process.stdout.readline()
        assert said.decode().strip() == READY, (self._here / "leader.log").read_text()[-2000:]

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End every process at once, and start again."""
        assert self._process is not None
        for pid in pids_marked(self._here.name):
            with contextlib.suppress(ProcessLookupError):  # some die with their parent
                os.kill(pid, number)
        await self._process.wait()
        await until(lambda: not pids_marked(self._here.name), "processes to end", HANG_SECONDS)
        await self.start()

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()


@asynccontextmanager
async def group_fleet(plan: FleetPlan) -> AsyncIterator[ChaosFleet]:
    """Without `children`: nobody but their own supervisor knows them."""
    with directories() as (here, arenas):
        leader = Leader(here, arenas, plan)
        try:
            await leader.start()
            bus = await connect(leader.url, "chaos")
            await bus.ensure(TOPOLOGY)
            try:
                yield ChaosFleet(bus, leader, (), arenas, here / "logs", here.name, plan)
            finally:
                await bus.close()
        finally:
            await leader.stop()


async def group_kills(trial: Trial, kills: int) -> None:
    """kill -9 of every process of the fleet at once; the files of the dead are gone once their
    grace is over, although nobody of theirs was left to remove them."""
    slowest = 0.0

    async def kill() -> None:
        nonlocal slowest
        while trial.runs < kills:
            await asyncio.sleep(trial.chance.uniform(*PAUSE_SECONDS))
            dead = set(trial.fleet.arenas.glob("*.arena"))
            began = time.monotonic()
            await trial.fleet.broker.restart()
            slowest = max(slowest, time.monotonic() - began)
            await until(
                lambda dead=dead: not dead & set(ownerless(trial.fleet.arenas)),  # type: ignore[misc]
                "the files of the dead to be removed",
                HANG_SECONDS,
            )
            trial.runs += 1

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill())
        await trial.load.run(killing.done)
    trial.figures["slowest restart s"] = slowest
