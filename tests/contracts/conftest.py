"""The contract suite runs every scenario on the in-memory bus and on a real nats-server."""

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared.bus import nats
from shared.bus.base import BucketSpec, Bus, StreamSpec, Topology
from shared.bus.embedded import nats_server
from shared.bus.memory import MemoryBroker
from tests.conftest import run

numbers = itertools.count()


@dataclass
class World:
    """A bus, and names that no other scenario uses."""

    open: Callable[[str], Awaitable[Bus]]
    prefix: str
    handles: list[Bus] = field(default_factory=list)
    bus: Bus = field(init=False)

    @property
    def work(self) -> str:
        return f"{self.prefix}work"

    @property
    def results(self) -> str:
        return f"{self.prefix}results"

    @property
    def bucket(self) -> str:
        return f"{self.prefix}bucket"

    def topology(self) -> Topology:
        """What every scenario finds: a work queue, a stream of results, a bucket."""
        work = StreamSpec(self.work, (f"{self.work}.>",), work_queue=True)
        results = StreamSpec(self.results, (f"{self.results}.>",), work_queue=False)
        return Topology((work, results), (BucketSpec(self.bucket),))

    async def bounded(self, bound: int) -> str:
        """A work queue of at most `bound` messages; ask again to change the bound."""
        name = f"{self.prefix}bounded"
        spec = StreamSpec(name, (f"{name}.>",), work_queue=True, max_messages=bound)
        await self.bus.ensure(Topology((spec,), ()))
        return name

    async def forgetful(self, max_age: float) -> str:
        """The name of a stream, and of a bucket, that keep nothing for longer."""
        name = f"{self.prefix}forgetful"
        spec = StreamSpec(name, (f"{name}.>",), work_queue=False, max_age=max_age)
        await self.bus.ensure(Topology((spec,), (BucketSpec(name, max_age),)))
        return name

    async def connect(self) -> Bus:
        """One more handle; closed when the scenario ends."""
        bus = await self.open(f"handle {len(self.handles)}")
        self.handles.append(bus)
        return bus


Scenario = Callable[[World], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    """One server for all tests that don't harm it."""
    with fast_directory() as directory, asyncio.Runner() as runner:
        server: Any = nats_server(directory)
        yield runner.run(server.__aenter__()).url
        runner.run(server.__aexit__(None, None, None))


@contextlib.contextmanager
def fast_directory() -> Iterator[Path]:
    """In memory where there is room for a server's store, since each write to it is synced."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as path:
        yield Path(path)


@pytest.fixture(params=["memory", "nats"])
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scenario in a world of its own."""
    opener, prefix = _opener(request), f"t{next(numbers)}"

    async def perform(scenario: Scenario) -> None:
        world = World(opener, prefix)
        world.bus = await world.connect()
        try:
            await world.bus.ensure(world.topology())
            await scenario(world)
        finally:
            for handle in world.handles:
                await handle.close()

    return lambda scenario: run(perform(scenario))


def _opener(request: pytest.FixtureRequest) -> Callable[[str], Awaitable[Bus]]:
    if request.param == "nats":
        url = request.getfixturevalue("nats_url")
        return lambda name: nats.connect(url, name)
    broker = MemoryBroker()

    async def connect(name: str) -> Bus:
        return broker.connect(name)

    return connect
