"""What every bus promises of core messages, discovery, setting up and closing."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import pytest

from shared.bus.base import Bus, Message, ServiceInfo, StreamSpec, Subscription, Topology
from shared.bus.service import data_of
from shared.errors import BusUnavailable, InvalidRequest, Misconfigured, PayloadTooLarge, QueueFull
from tests.conftest import HANG_SECONDS, eventually
from tests.contracts.conftest import Play, World

LONG = HANG_SECONDS


async def read(subscription: Subscription, count: int) -> list[bytes]:
    found: list[bytes] = []
    iterator = aiter(subscription)
    while len(found) < count:
        found.append((await anext(iterator)).data)
    return found


async def answer(bus: Bus, subscription: Subscription, text: bytes) -> None:
    async for message in subscription:
        await bus.publish(message.reply, text + message.data)


def test_every_listener_gets_every_message_in_order(play: Play) -> None:
    async def scenario(world: World) -> None:
        subject, other = f"{world.prefix}.a", await world.connect()
        async with world.bus.subscribe(subject) as one, other.subscribe(subject) as two:
            for i in range(100):
                await world.bus.publish(subject, b"%d" % i)
            expected = [b"%d" % i for i in range(100)]
            assert await read(one, 100) == expected
            assert await read(two, 100) == expected

    play(scenario)


def test_a_message_carries_its_subject_and_headers(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with world.bus.subscribe(f"{world.prefix}.*") as subscription:
            await world.bus.publish(f"{world.prefix}.a", b"1", {"key": "value with: colon"})
            await world.bus.publish(f"{world.prefix}.a", b"2")
            first = await anext(aiter(subscription))
            second = await anext(aiter(subscription))
        assert first == Message(f"{world.prefix}.a", b"1", {"key": "value with: colon"})
        assert second == Message(f"{world.prefix}.a", b"2", {})

    play(scenario)


def test_wildcards_stand_for_one_token_or_for_the_rest(play: Play) -> None:
    async def scenario(world: World) -> None:
        p = world.prefix
        async with (
            world.bus.subscribe(f"{p}.*.x") as one,
            world.bus.subscribe(f"{p}.>") as rest,
        ):
            for subject in ("a", "a.x", "a.b.x", "b.x"):
                await world.bus.publish(f"{p}.{subject}", subject.encode())
            assert await read(one, 2) == [b"a.x", b"b.x"]
            assert await read(rest, 4) == [b"a", b"a.x", b"a.b.x", b"b.x"]

    play(scenario)


def test_of_a_queue_group_one_member_gets_each_message(play: Play) -> None:
    async def scenario(world: World) -> None:
        subject, other = f"{world.prefix}.a", await world.connect()
        got: list[bytes] = []

        async def member(subscription: Subscription) -> None:
            async for message in subscription:
                got.append(message.data)  # noqa: PERF401 (both members fill it)

        async with (
            world.bus.subscribe(subject, queue="group") as one,
            other.subscribe(subject, queue="group") as two,
            other.subscribe(subject) as plain,
        ):
            tasks = [asyncio.create_task(member(subscription)) for subscription in (one, two)]
            expected = [b"%02d" % i for i in range(50)]
            for data in expected:
                await world.bus.publish(subject, data)
            assert await read(plain, 50) == expected

            async def all_came() -> bool:
                return len(got) >= 50

            await eventually(all_came)
            for task in tasks:
                task.cancel()
        assert sorted(got) == expected

    play(scenario)


def test_listening_has_begun_when_the_context_is_entered(play: Play) -> None:
    async def scenario(world: World) -> None:
        other = await world.connect()
        for i in range(20):
            async with world.bus.subscribe(f"{world.prefix}.a") as subscription:
                await other.publish(f"{world.prefix}.a", b"%d" % i)
                assert await read(subscription, 1) == [b"%d" % i]

    play(scenario)


def test_publishing_to_nobody_is_no_error(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.publish(f"{world.prefix}.a", b"lost")
        async with world.bus.subscribe(f"{world.prefix}.a") as subscription:
            await world.bus.publish(f"{world.prefix}.a", b"heard")
            assert await read(subscription, 1) == [b"heard"]

    play(scenario)


def test_a_request_gets_one_answer(play: Play) -> None:
    async def scenario(world: World) -> None:
        other = await world.connect()
        async with (
            other.subscribe(f"{world.prefix}.a", queue="q") as subscription,
            asyncio.TaskGroup() as group,
        ):
            task = group.create_task(answer(other, subscription, b"re:"))
            replies = await asyncio.gather(
                *(world.bus.request(f"{world.prefix}.a", b"%d" % i, LONG) for i in range(20))
            )
            assert [reply.data for reply in replies] == [b"re:%d" % i for i in range(20)]
            task.cancel()

    play(scenario)


def test_a_request_that_nobody_hears_fails_at_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with world.bus.subscribe(f"{world.prefix}.a"):
            pass
        async with asyncio.timeout(LONG / 5):
            with pytest.raises(BusUnavailable, match="nobody listens"):
                await world.bus.request(f"{world.prefix}.a", b"", LONG)

    play(scenario)


def test_a_request_that_is_not_answered_fails_in_time(play: Play) -> None:
    async def scenario(world: World) -> None:
        async with world.bus.subscribe(f"{world.prefix}.a"):
            with pytest.raises(BusUnavailable, match="no answer"):
                await world.bus.request(f"{world.prefix}.a", b"", 0.1)

    play(scenario)


def test_gather_has_every_answer(play: Play) -> None:
    async def scenario(world: World) -> None:
        other = await world.connect()
        subject = f"{world.prefix}.a"
        async with (
            world.bus.subscribe(subject) as one,
            other.subscribe(subject) as two,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                group.create_task(answer(world.bus, one, b"one:")),
                group.create_task(answer(other, two, b"two:")),
            ]

            async def everyone_answers() -> bool:
                replies = await world.bus.gather(subject, b"x", 0.2)
                return sorted(reply.data for reply in replies) == [b"one:x", b"two:x"]

            await eventually(everyone_answers)
            for task in tasks:
                task.cancel()

    play(scenario)


def test_gather_without_listeners_is_empty(play: Play) -> None:
    async def scenario(world: World) -> None:
        assert list(await world.bus.gather(f"{world.prefix}.a", b"", 0.1)) == []

    play(scenario)


def test_nothing_over_the_limit_is_sent(play: Play) -> None:
    async def scenario(world: World) -> None:
        bus, subject, limit = world.bus, f"{world.prefix}.a", world.bus.max_payload
        calls: Sequence[Callable[[bytes], Awaitable[object]]] = (
            lambda data: bus.publish(subject, data),
            lambda data: bus.request(subject, data, 1),
            lambda data: bus.gather(subject, data, 1),
        )
        for call in calls:
            with pytest.raises(PayloadTooLarge):
                await call(bytes(limit + 1))
        async with bus.subscribe(subject) as subscription:
            await bus.publish(subject, bytes(limit))
            assert len((await read(subscription, 1))[0]) == limit

    play(scenario)


@pytest.mark.parametrize("subject", ["", "a b", "a..b", "a.*", "a.>"])
def test_nothing_is_published_on_what_is_no_subject(play: Play, subject: str) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(InvalidRequest):
            await world.bus.publish(subject, b"")

    play(scenario)


def test_services_answer_discovery_while_their_context_is_open(play: Play) -> None:
    async def scenario(world: World) -> None:
        info = ServiceInfo(world.prefix, "0.1.0", "denoises", {"model": "pocket"})
        other = await world.connect()
        async with (
            world.bus.service(info, lambda: {"rows": 3}) as one,
            other.service(info, lambda: {"rows": 4}) as two,
        ):

            async def both_answer() -> bool:
                pongs = await other.gather(f"$SRV.PING.{world.prefix}", b"", 0.1)
                everyone = await other.gather("$SRV.PING", b"", 0.1)
                ours, all_ids = ({json.loads(p.data)["id"] for p in of} for of in (pongs, everyone))
                return ours == {one, two} and ours <= all_ids

            await eventually(both_answer)
            told = json.loads((await other.request(f"$SRV.INFO.{world.prefix}.{one}", b"", 5)).data)
            assert told["type"] == "io.nats.micro.v1.info_response"
            assert (told["name"], told["version"]) == (world.prefix, "0.1.0")
            assert (told["description"], told["metadata"]) == ("denoises", {"model": "pocket"})
            stats = await other.request(f"$SRV.STATS.{world.prefix}.{two}", b"", 5)
            assert data_of(stats) == {"rows": 4}
        assert list(await other.gather(f"$SRV.PING.{world.prefix}", b"", 0.1)) == []

    play(scenario)


def test_an_error_inside_a_service_or_a_subscription_leaves_as_it_is(play: Play) -> None:
    async def scenario(world: World) -> None:
        info = ServiceInfo(world.prefix, "0.1.0", "fails")
        with pytest.raises(ZeroDivisionError):
            async with world.bus.service(info, dict), world.bus.subscribe(f"{world.prefix}.a"):
                raise ZeroDivisionError

    play(scenario)


def test_discovery_replies_are_those_of_nats_micro(play: Play) -> None:
    async def scenario(world: World) -> None:
        info = ServiceInfo(world.prefix, "0.1.0", "denoises")
        async with world.bus.service(info, dict) as instance:
            replies = {
                verb: json.loads(
                    (await world.bus.request(f"$SRV.{verb}.{world.prefix}", b"", 5)).data
                )
                for verb in ("PING", "INFO", "STATS")
            }
        shared = {"type", "name", "id", "version", "metadata"}
        assert {reply["id"] for reply in replies.values()} == {instance}
        assert set(replies["PING"]) == shared
        assert set(replies["INFO"]) == shared | {"description", "endpoints"}
        assert set(replies["STATS"]) == shared | {"started", "endpoints"}

    play(scenario)


def test_ensuring_again_keeps_what_is_there_and_changes_what_differs(play: Play) -> None:
    async def scenario(world: World) -> None:
        stream = await world.bounded(2)
        for i in range(2):
            await world.bus.store(f"{stream}.{i}", b"job")
        await world.bounded(2)
        assert await world.bus.depth(stream, ">") == 2
        with pytest.raises(QueueFull):
            await world.bus.store(f"{stream}.more", b"job")
        await world.bounded(3)
        assert await world.bus.store(f"{stream}.more", b"job") == "stored"

    play(scenario)


def test_everybody_may_ensure_at_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        handles = [world.bus, await world.connect(), await world.connect()]
        spec = StreamSpec(f"{world.prefix}new", (f"{world.prefix}new.>",), work_queue=True)
        await asyncio.gather(*(bus.ensure(Topology((spec,), ())) for bus in handles))
        assert await world.bus.store(f"{world.prefix}new.a", b"job") == "stored"

    play(scenario)


def test_what_cannot_be_reconciled_is_a_misconfiguration(play: Play) -> None:
    async def scenario(world: World) -> None:
        other_kind = StreamSpec(world.work, (f"{world.work}.>",), work_queue=False)
        other_name = StreamSpec(f"{world.prefix}x", (f"{world.work}.a",), work_queue=True)
        for spec in (other_kind, other_name):
            with pytest.raises(Misconfigured):
                await world.bus.ensure(Topology((spec,), ()))

    play(scenario)


def test_what_was_published_before_closing_arrives(play: Play) -> None:
    async def scenario(world: World) -> None:
        other = await world.connect()
        async with world.bus.subscribe(f"{world.prefix}.a") as subscription:
            for i in range(100):
                await other.publish(f"{world.prefix}.a", b"%d" % i)
            await other.close()
            assert len(await read(subscription, 100)) == 100

    play(scenario)


def test_after_closing_every_call_raises(play: Play) -> None:
    async def scenario(world: World) -> None:
        bus = await world.connect()
        consumer = await bus.consumer(world.work, "c", f"{world.work}.>", LONG)
        await bus.close()
        await bus.close()
        subject = f"{world.work}.a"

        async def listen() -> None:
            async with bus.subscribe(subject):
                pass

        async def listing() -> None:
            assert [item async for item in bus.listing(world.work, subject)] == []

        calls: Sequence[Callable[[], Awaitable[object]]] = (
            lambda: bus.publish(subject, b""),
            lambda: bus.request(subject, b"", 1),
            lambda: bus.gather(subject, b"", 1),
            listen,
            lambda: bus.store(subject, b""),
            lambda: bus.stored(subject),
            listing,
            lambda: bus.remove(world.work, subject),
            lambda: bus.consumer(world.work, "c", f"{world.work}.>", LONG),
            lambda: consumer.fetch(1, 0),
            lambda: consumer.fetch(1, 1),
            lambda: bus.depth(world.work, subject),
            lambda: bus.get(world.bucket, "job"),
            lambda: bus.create(world.bucket, "job", b""),
            lambda: bus.update(world.bucket, "job", b"", 1),
            lambda: bus.keys(world.bucket),
            lambda: bus.ensure(world.topology()),
        )
        for call in calls:
            with pytest.raises(BusUnavailable):
                await call()

    play(scenario)


def test_closing_ends_subscriptions(play: Play) -> None:
    async def scenario(world: World) -> None:
        bus = await world.connect()
        async with bus.subscribe(f"{world.prefix}.a") as subscription:
            await bus.close()
            assert [message async for message in subscription] == []

    play(scenario)
