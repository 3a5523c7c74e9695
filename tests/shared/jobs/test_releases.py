"""Slots are freed when their job ends, and when their lifetime does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared import messages, subjects
from shared.bus.base import Bus
from shared.bus.memory import MemoryBroker
from shared.bus.topology import TOPOLOGY
from shared.jobs.advance import new_record
from shared.jobs.events import CancelRequested
from shared.jobs.graph import workflow
from shared.jobs.record_store import RecordStore
from shared.jobs.releases import keep_released
from shared.security.private_files import private_directory
from shared.tensors import layout, owners
from shared.tensors.janitor import keep_swept
from shared.tensors.layout import UNIT
from tests.conftest import eventually, run
from tests.helpers.factories import spec
from tests.helpers.memory_transport import MemoryTransport


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def releasing(bus: Bus, owner: MemoryTransport, clock: Clock) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(keep_released(bus, owner, expire_every=0.01, clock=clock))
        yield
        task.cancel()


def put(transport: MemoryTransport, job_id: str, lifetime: float = 60) -> None:
    transport.put(
        bytes(UNIT * 3), "uint8", (UNIT * 3,), job_id=job_id, attempt=1, lifetime=lifetime
    )


def held(transport: MemoryTransport) -> int:
    return int(repr(transport).split()[-2])


def test_a_release_frees_the_slots_of_its_job_and_nonsense_frees_none() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("test")
        clock = Clock()
        transport = MemoryTransport("vae-1-1-00000000", clock=clock)
        put(transport, "ended")
        put(transport, "running")
        async with releasing(bus, transport, clock):

            async def released() -> bool:
                # Repeated, because a release may precede the subscription and is then lost.
                await bus.publish(subjects.release(transport.name), b"nonsense")
                release = messages.encode(messages.ReleaseJob(job_id="ended"))
                await bus.publish(subjects.release(transport.name), release)
                return held(transport) == 1

            await eventually(released)
        assert transport.release_job("running") == 1
        await bus.close()

    run(scenario())


def test_a_release_that_was_missed_is_found_by_looking_at_the_record() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        records = RecordStore(bus)
        pages = {}
        for job_id in ("ended", "running"):
            pages[job_id] = await records.open(new_record(job_id, spec(), workflow(spec()), at=1.0))
        await records.advance(pages["ended"], CancelRequested(2.0))
        transport = MemoryTransport("vae-1-1-00000000")
        for job_id in ("ended", "running", "unknown"):
            put(transport, job_id)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(keep_released(bus, transport, audit_every=0.01))

            async def found() -> bool:
                return transport.jobs() == {"running"}

            await eventually(found)
            task.cancel()
        await bus.close()

    run(scenario())


def test_lifetimes_end_while_a_service_runs() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("test")
        clock = Clock()
        transport = MemoryTransport("vae-1-1-00000000", clock=clock)
        put(transport, "short", lifetime=5)
        put(transport, "long", lifetime=500)
        async with releasing(bus, transport, clock):
            clock.now += 5

            async def expired() -> bool:
                return held(transport) == 1

            await eventually(expired)
        assert transport.release_job("long") == 1
        await bus.close()

    run(scenario())


def test_a_directory_is_kept_swept(tmp_path: Path) -> None:
    owner = owners.Owner("dead", 1 << 22, 1)
    directory = private_directory(tmp_path / "arenas")
    path = directory / (owners.new_name(owner) + owners.SUFFIX)
    path.write_bytes(layout.Header(UNIT, owner.pid, owner.started).pack())

    async def scenario() -> None:
        clock = Clock()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(keep_swept(directory, every=0.01, clock=clock))

            async def swept() -> bool:
                clock.now += 60
                return not path.exists()

            await eventually(swept)
            task.cancel()

    run(scenario())
