"""What every bus promises of pull consumers: fetching, redelivery, acknowledgement."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from shared.bus.base import Consumer, Delivery
from shared.errors import BusUnavailable, Misconfigured
from tests.conftest import HANG_SECONDS, eventually
from tests.contracts.conftest import Play, World

LONG = HANG_SECONDS
"""Seconds that no test waits for; a test that does fails by its timeout."""


async def consumer_of(world: World, ack_wait: float = LONG) -> Consumer:
    return await world.bus.consumer(world.work, "c", f"{world.work}.>", ack_wait)


async def fill(world: World, count: int) -> list[str]:
    subjects = [f"{world.work}.{i}" for i in range(count)]
    for subject in subjects:
        await world.bus.store(subject, subject.encode())
    return subjects


def subjects_of(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.subject for delivery in deliveries]


def test_a_delivery_carries_what_was_stored(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.store(f"{world.work}.a", b"job", {"traceparent": "00-1-2-01"})
        (delivery,) = await (await consumer_of(world)).fetch(1, LONG)
        assert delivery.subject == f"{world.work}.a"
        assert delivery.data == b"job"
        assert dict(delivery.headers) == {"traceparent": "00-1-2-01"}
        assert delivery.deliveries == 1

    play(scenario)


def test_an_empty_message_with_a_status_header_is_a_message_too(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.store(f"{world.work}.a", b"", {"Status": "404"})
        (delivery,) = await (await consumer_of(world)).fetch(1, LONG)
        assert (delivery.data, dict(delivery.headers)) == (b"", {"Status": "404"})

    play(scenario)


def test_fetch_returns_at_once_what_is_there_oldest_first(play: Play) -> None:
    async def scenario(world: World) -> None:
        subjects = await fill(world, 5)
        consumer = await consumer_of(world)
        assert subjects_of(await consumer.fetch(3, LONG)) == subjects[:3]
        assert subjects_of(await consumer.fetch(3, LONG)) == subjects[3:]

    play(scenario)


def test_fetch_returns_the_first_to_arrive_while_it_waits(play: Play) -> None:
    async def scenario(world: World) -> None:
        consumer = await consumer_of(world)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(consumer.fetch(10, LONG))
            await asyncio.sleep(0)
            await fill(world, 1)
        assert subjects_of(waiting.result()) == [f"{world.work}.0"]

    play(scenario)


def test_fetch_returns_nothing_on_silence(play: Play) -> None:
    async def scenario(world: World) -> None:
        consumer = await consumer_of(world)
        clock = asyncio.get_running_loop().time
        assert await consumer.fetch(3, 0) == []
        before = clock()
        assert await consumer.fetch(3, 0.2) == []
        assert clock() - before >= 0.19

    play(scenario)


def test_what_arrives_after_a_fetch_ended_is_for_the_next_one(play: Play) -> None:
    async def scenario(world: World) -> None:
        consumer = await consumer_of(world)
        for i in range(5):
            assert await consumer.fetch(2, 0.01) == []
            await world.bus.store(f"{world.work}.{i}", b"job")
            assert subjects_of(await consumer.fetch(2, LONG)) == [f"{world.work}.{i}"]

    play(scenario)


def test_concurrent_fetches_share_the_messages_among_them(play: Play) -> None:
    async def scenario(world: World) -> None:
        consumers = [await consumer_of(world)]
        other = await world.connect()
        consumers.append(await other.consumer(world.work, "c", f"{world.work}.>", LONG))
        got: list[str] = []

        async def worker(consumer: Consumer) -> None:
            while len(got) < 40:
                for delivery in await consumer.fetch(3, 0.2):
                    got.append(delivery.subject)
                    await delivery.ack()

        async with asyncio.TaskGroup() as group:
            for consumer in consumers * 3:
                group.create_task(worker(consumer))
            subjects = await fill(world, 40)
        assert sorted(got) == sorted(subjects)
        assert await world.bus.depth(world.work, ">") == 0

    play(scenario)


def test_of_those_that_wait_the_least_loaded_is_served_first(play: Play) -> None:
    async def scenario(world: World) -> None:
        consumers = [await consumer_of(world)]
        other = await world.connect()
        consumers.append(await other.consumer(world.work, "c", f"{world.work}.>", LONG))
        loads = (3, 1, 40, 0, 2)
        served: list[int] = []

        async def wait(consumer: Consumer, load: int) -> None:
            assert len(await consumer.fetch(1, LONG, load)) == 1
            served.append(load)

        async with asyncio.TaskGroup() as group:
            for position, load in enumerate(loads):
                group.create_task(wait(consumers[position % 2], load))
            for number in range(len(loads)):
                await eventually(lambda: _wait(world, len(loads) - number))  # noqa: B023
                await world.bus.store(f"{world.work}.{number}", b"job")
                await eventually(lambda: _answer(len(served) > number))  # noqa: B023 (awaited here)
        assert served == sorted(loads)

    play(scenario)


async def _wait(world: World, fetches: int) -> bool:
    """Whether so many wait at the server; the fake has no server, and lets them wait at once."""
    await asyncio.sleep(0)
    subject = f"$JS.API.CONSUMER.INFO.{world.work}.c"
    try:
        info = await world.bus.request(subject, b"", LONG)
    except BusUnavailable:
        return True
    return bool(json.loads(info.data)["num_waiting"] == fetches)


async def _answer(value: bool) -> bool:
    return value


def test_a_fetch_that_only_looks_does_not_wait_for_one_that_waits(play: Play) -> None:
    async def scenario(world: World) -> None:
        consumer = await consumer_of(world)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(consumer.fetch(1, LONG))
            await asyncio.sleep(0)
            async with asyncio.timeout(LONG / 5):
                assert await consumer.fetch(1, 0) == []
            await fill(world, 1)
        assert len(waiting.result()) == 1

    play(scenario)


def test_what_is_not_acknowledged_comes_again_to_whoever_pulls_next(play: Play) -> None:
    async def scenario(world: World) -> None:
        await fill(world, 1)
        (first,) = await (await consumer_of(world, ack_wait=0.3)).fetch(1, LONG)
        other = await world.connect()
        consumer = await other.consumer(world.work, "c", f"{world.work}.>", 0.3)
        (second,) = await consumer.fetch(1, LONG)
        assert (first.subject, first.deliveries) == (second.subject, 1)
        assert second.deliveries == 2

    play(scenario)


def test_what_is_acknowledged_does_not_come_again(play: Play) -> None:
    async def scenario(world: World) -> None:
        await fill(world, 1)
        consumer = await consumer_of(world)
        (delivery,) = await consumer.fetch(1, LONG)
        await delivery.ack()
        await delivery.ack()
        assert await world.bus.depth(world.work, ">") == 0
        assert await consumer.fetch(1, 0) == []

    play(scenario)


def test_extending_starts_the_wait_anew(play: Play) -> None:
    async def scenario(world: World) -> None:
        await fill(world, 1)
        consumer = await consumer_of(world, ack_wait=2.0)
        (delivery,) = await consumer.fetch(1, LONG)
        for _ in range(5):
            await delivery.extend()
            assert await consumer.fetch(1, 0.5) == []
        (again,) = await consumer.fetch(1, LONG)
        assert again.deliveries == 2

    play(scenario)


def test_what_was_given_back_comes_again_after_the_delay(play: Play) -> None:
    async def scenario(world: World) -> None:
        await fill(world, 1)
        consumer = await consumer_of(world)
        (delivery,) = await consumer.fetch(1, LONG)
        clock = asyncio.get_running_loop().time
        before = clock()
        await delivery.retry(0.3)
        (again,) = await consumer.fetch(1, LONG)
        assert again.deliveries == 2
        assert 0.29 <= clock() - before < LONG

    play(scenario)


def test_what_was_given_back_without_delay_comes_again_at_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        await fill(world, 1)
        consumer = await consumer_of(world)
        (delivery,) = await consumer.fetch(1, LONG)
        await delivery.retry(0)
        (again,) = await consumer.fetch(1, LONG)
        assert again.deliveries == 2
        await again.ack()
        assert await world.bus.depth(world.work, ">") == 0

    play(scenario)


def test_a_consumer_sees_only_its_own_subjects(play: Play) -> None:
    async def scenario(world: World) -> None:
        names = ("a", "b")
        consumers = [
            await world.bus.consumer(world.work, name, f"{world.work}.{name}.*", LONG)
            for name in names
        ]
        for name in names:
            await world.bus.store(f"{world.work}.{name}.0", b"job")
        for name, consumer in zip(names, consumers, strict=True):
            assert subjects_of(await consumer.fetch(9, LONG)) == [f"{world.work}.{name}.0"]
            assert await consumer.fetch(9, 0) == []

    play(scenario)


def test_a_durable_consumer_remembers_what_is_out(play: Play) -> None:
    async def scenario(world: World) -> None:
        subjects = await fill(world, 3)
        await (await consumer_of(world)).fetch(1, LONG)
        assert subjects_of(await (await consumer_of(world)).fetch(9, LONG)) == subjects[1:]

    play(scenario)


def test_consumers_of_a_work_queue_must_not_overlap(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.consumer(world.work, "a", f"{world.work}.a.*", LONG)
        with pytest.raises(Misconfigured):
            await world.bus.consumer(world.work, "b", f"{world.work}.>", LONG)

    play(scenario)


def test_removed_messages_are_not_delivered(play: Play) -> None:
    async def scenario(world: World) -> None:
        subjects = await fill(world, 2)
        consumer = await consumer_of(world, ack_wait=0.3)
        await consumer.fetch(1, LONG)
        for subject in subjects:
            await world.bus.remove(world.work, subject)

        async def nothing_comes() -> bool:
            return await consumer.fetch(1, 0.5) == []

        await eventually(nothing_comes)

    play(scenario)


def test_closing_the_bus_ends_a_waiting_fetch(play: Play) -> None:
    async def scenario(world: World) -> None:
        other = await world.connect()
        consumer = await other.consumer(world.work, "c", f"{world.work}.>", LONG)
        waiting = asyncio.create_task(consumer.fetch(1, LONG))
        await asyncio.sleep(0)
        await other.close()
        with pytest.raises(BusUnavailable):
            await waiting

    play(scenario)


def test_an_acknowledgement_after_closing_raises(play: Play) -> None:
    async def scenario(world: World) -> None:
        await fill(world, 1)
        other = await world.connect()
        consumer = await other.consumer(world.work, "c", f"{world.work}.>", LONG)
        (delivery,) = await consumer.fetch(1, LONG)
        await other.close()
        for attempt in (delivery.ack, delivery.extend, lambda: delivery.retry(0)):
            with pytest.raises(BusUnavailable):
                await attempt()

    play(scenario)
