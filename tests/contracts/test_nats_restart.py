"""What only a real server can show: kills, restarts, and the store on disk."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.bus.base import BucketSpec, Bus, Consumer, StreamSpec, Topology
from shared.bus.embedded import NatsServer, nats_server
from shared.bus.nats import connect
from shared.errors import BusUnavailable, RevisionConflict
from tests.conftest import HANG_SECONDS, eventually, run
from tests.contracts.conftest import fast_directory

TOPOLOGY = Topology((StreamSpec("W", ("w.>",), work_queue=True),), (BucketSpec("B"),))
LONG = HANG_SECONDS


@dataclass
class Restartable:
    """A server that comes back on its port with its store."""

    directory: Path
    stack: contextlib.AsyncExitStack
    server: NatsServer

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.server.pid, number)
        await self.stack.aclose()
        again = nats_server(self.directory, port=self.server.port)
        self.server = await self.stack.enter_async_context(again)


@contextlib.asynccontextmanager
async def restartable(directory: Path | None = None) -> AsyncIterator[Restartable]:
    with contextlib.ExitStack() as files:
        directory = directory or files.enter_context(fast_directory())
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(nats_server(directory))
            yield Restartable(directory, stack, server)


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer) -> AsyncIterator[Bus]:
    bus = await connect(server.url, "test", LONG)
    try:
        await bus.ensure(TOPOLOGY)
        yield bus
    finally:
        await bus.close()


async def at_least(count: int, counted: Callable[[], int]) -> None:
    async def reached() -> bool:
        return counted() >= count

    await eventually(reached, within=LONG, every=0.002)


def test_nothing_acknowledged_is_lost_when_the_server_is_killed_under_load(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with restartable(tmp_path) as place, bus_on(place.server) as bus:
            acknowledged: set[str] = set()

            async def publisher(number: int) -> None:
                for i in range(60):
                    subject = f"w.{number}.{i}"
                    assert await bus.store(subject, subject.encode()) == "stored"
                    acknowledged.add(subject)

            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(publisher(number))
                for part in (40, 140):
                    await at_least(part, lambda: len(acknowledged))
                    await place.restart()
            assert len(acknowledged) == 240
            assert {subject async for subject, _ in bus.listing("W", ">")} == acknowledged

    run(scenario())


def test_every_job_is_worked_on_through_kills_of_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            done: set[str] = set()
            consumer = await bus.consumer("W", "c", "w.>", 1.0)

            async def worker() -> None:
                while len(done) < 120:
                    for delivery in await consumer.fetch(4, 0.5):
                        await delivery.ack()
                        done.add(delivery.subject)

            async def submitter() -> None:
                for i in range(120):
                    await bus.store(f"w.{i}", b"job")

            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(worker())
                group.create_task(submitter())
                await at_least(40, lambda: len(done))
                await place.restart()
            assert await bus.depth("W", ">") == 0

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_waiting_fetch_survives_a_restart(number: signal.Signals) -> None:
    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            consumer = await bus.consumer("W", "c", "w.>", LONG)
            waiting = asyncio.create_task(consumer.fetch(1, LONG))
            await bus.depth("W", "w.>")
            await place.restart(number)
            await bus.store("w.a", b"job")
            (delivery,) = await waiting
            assert (delivery.data, delivery.deliveries) == (b"job", 1)

    run(scenario())


def test_a_counter_is_exact_through_kills_of_the_server() -> None:
    """A repeated compare-and-set knows whether its first attempt was the one that succeeded."""

    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            await bus.create("B", "count", b"0")
            reached = 0

            async def count() -> None:
                nonlocal reached
                revision = 1
                for i in range(200):
                    revision = await bus.update("B", "count", b"%d" % (i + 1), revision)
                    reached = i

            async with asyncio.TaskGroup() as group:
                group.create_task(count())
                for part in (50, 120):
                    await at_least(part, lambda: reached)
                    await place.restart()
            entry = await bus.get("B", "count")
            assert entry is not None
            assert entry.value == b"200"

    run(scenario())


def test_subscriptions_and_queries_go_on_after_a_restart() -> None:
    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            await bus.create("B", "job", b"record")
            async with bus.subscribe("a") as subscription:
                await place.restart()
                entry = await bus.get("B", "job")
                assert entry is not None
                assert entry.value == b"record"
                with pytest.raises(RevisionConflict):
                    await bus.create("B", "job", b"other")
                await bus.publish("a", b"heard")
                assert (await anext(aiter(subscription))).data == b"heard"

    run(scenario())


def test_a_server_that_stays_away_is_reported_when_the_budget_is_spent() -> None:
    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            consumer = await bus.consumer("W", "c", "w.>", LONG)
            bus._connection.budget = 0.5  # type: ignore[attr-defined]
            os.kill(place.server.pid, signal.SIGKILL)
            await place.stack.aclose()
            with pytest.raises(BusUnavailable):
                await bus.store("w.a", b"job")
            with pytest.raises(BusUnavailable):
                await bus.get("B", "job")
            assert await consumer.fetch(1, 0) == []
            assert await consumer.fetch(1, 0.1) == []
            await bus.publish("a", b"nobody hears this")

    run(scenario())


def test_there_is_no_connection_without_a_server() -> None:
    async def scenario() -> None:
        with pytest.raises(BusUnavailable, match="no connection"):
            await connect("nats://127.0.0.1:1", "test", budget=0.5)

    run(scenario())


def test_a_consumer_that_was_deleted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.nats.consumer.SLICE", 0.2)
    monkeypatch.setattr("shared.bus.nats.consumer.GRACE", 0.2)

    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            consumer = await bus.consumer("W", "c", "w.>", LONG)
            waiting = asyncio.create_task(consumer.fetch(1, LONG))
            await bus.depth("W", "w.>")
            await bus.request("$JS.API.CONSUMER.DELETE.W.c", b"", LONG)
            await bus.store("w.a", b"job")
            assert len(await waiting) == 1

    run(scenario())


def test_what_a_cancelled_fetch_had_asked_for_is_for_the_next_one() -> None:
    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            consumer: Consumer = await bus.consumer("W", "c", "w.>", LONG)
            for i in range(5):
                waiting = asyncio.create_task(consumer.fetch(1, LONG))
                await bus.depth("W", "w.>")
                waiting.cancel()
                await asyncio.wait([waiting])
                await bus.store(f"w.{i}", b"job")
                async with asyncio.timeout(LONG / 5):
                    (delivery,) = await consumer.fetch(1, LONG)
                assert (delivery.subject, delivery.deliveries) == (f"w.{i}", 1)
                await delivery.ack()

    run(scenario())


def test_a_key_deleted_by_hand_can_be_created_again() -> None:
    async def scenario() -> None:
        async with restartable() as place, bus_on(place.server) as bus:
            await bus.create("B", "job", b"record")
            await bus.request("$KV.B.job", b"", LONG, {"KV-Operation": "DEL"})
            assert await bus.get("B", "job") is None
            revision = await bus.create("B", "job", b"again")
            assert revision > 2

    run(scenario())
