"""What every bus promises of streams: one message per subject, bounds, listing, removal."""

import asyncio

import pytest

from shared.errors import InvalidRequest, Misconfigured, PayloadTooLarge, QueueFull
from tests.conftest import eventually
from tests.contracts.conftest import Play, World


def test_what_was_stored_is_found_on_exactly_its_subject(play: Play) -> None:
    async def scenario(world: World) -> None:
        subject = f"{world.results}.a"
        assert await world.bus.store(subject, b"image") == "stored"
        assert await world.bus.stored(subject) == b"image"
        assert await world.bus.stored(f"{world.results}.b") is None
        assert await world.bus.stored(f"{subject}.a") is None

    play(scenario)


def test_a_second_message_on_a_subject_is_a_duplicate_and_the_first_stays(play: Play) -> None:
    async def scenario(world: World) -> None:
        for stream in (world.work, world.results):
            assert await world.bus.store(f"{stream}.a", b"first") == "stored"
            other = await world.connect()
            assert await other.store(f"{stream}.a", b"second") == "duplicate"
            assert await world.bus.stored(f"{stream}.a") == b"first"

    play(scenario)


def test_of_many_who_store_on_one_subject_one_has_stored(play: Play) -> None:
    async def scenario(world: World) -> None:
        handles = [world.bus, await world.connect(), await world.connect()]
        outcomes = await asyncio.gather(
            *(bus.store(f"{world.results}.a", b"%d" % i) for i, bus in enumerate(handles))
        )
        assert sorted(outcomes) == ["duplicate", "duplicate", "stored"]
        winner = b"%d" % outcomes.index("stored")
        assert await world.bus.stored(f"{world.results}.a") == winner

    play(scenario)


def test_a_subject_is_free_again_once_its_message_was_acknowledged(play: Play) -> None:
    async def scenario(world: World) -> None:
        subject = f"{world.work}.a"
        consumer = await world.bus.consumer(world.work, "c", f"{world.work}.>", 30)
        for _ in range(2):
            assert await world.bus.store(subject, b"job") == "stored"
            (delivery,) = await consumer.fetch(1, 5)
            await delivery.ack()
            assert await world.bus.stored(subject) is None
            assert await world.bus.depth(world.work, subject) == 0

    play(scenario)


def test_an_acknowledged_message_stays_in_a_stream_that_is_no_work_queue(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.store(f"{world.results}.a", b"image")
        consumer = await world.bus.consumer(world.results, "c", f"{world.results}.>", 30)
        (delivery,) = await consumer.fetch(1, 5)
        await delivery.ack()
        assert await world.bus.stored(f"{world.results}.a") == b"image"

    play(scenario)


def test_a_full_stream_refuses_by_name_and_bound_until_there_is_room(play: Play) -> None:
    async def scenario(world: World) -> None:
        stream = await world.bounded(3)
        for i in range(3):
            assert await world.bus.store(f"{stream}.{i}", b"job") == "stored"
        with pytest.raises(QueueFull) as caught:
            await world.bus.store(f"{stream}.more", b"job")
        assert caught.value.fields["queue"] == stream
        assert caught.value.fields["bound"] == 3
        assert await world.bus.store(f"{stream}.0", b"job") == "duplicate"
        await world.bus.remove(stream, f"{stream}.1")
        assert await world.bus.store(f"{stream}.more", b"job") == "stored"

    play(scenario)


def test_a_message_leaves_when_it_reaches_the_age_of_its_stream(play: Play) -> None:
    async def scenario(world: World) -> None:
        subject = f"{await world.forgetful(0.5)}.a"
        await world.bus.store(subject, b"image")
        assert await world.bus.stored(subject) == b"image"

        async def gone() -> bool:
            return await world.bus.stored(subject) is None

        await eventually(gone)
        assert await world.bus.store(subject, b"image") == "stored"

    play(scenario)


def test_a_listing_has_all_matching_messages_oldest_first(play: Play) -> None:
    async def scenario(world: World) -> None:
        subjects = [f"{world.work}.a.{i}" for i in (2, 0, 1)]
        for subject in subjects:
            await world.bus.store(subject, subject.encode())
        await world.bus.store(f"{world.work}.b.0", b"other")
        found = [item async for item in world.bus.listing(world.work, f"{world.work}.a.*")]
        assert found == [(subject, subject.encode()) for subject in subjects]
        nothing = [item async for item in world.bus.listing(world.work, f"{world.work}.c.*")]
        assert nothing == []

    play(scenario)


def test_a_listing_goes_on_over_as_many_pages_as_it_takes(play: Play) -> None:
    async def scenario(world: World) -> None:
        subjects = [f"{world.work}.{i}" for i in range(600)]
        await asyncio.gather(*(world.bus.store(subject, b"") for subject in subjects))
        large = [f"{world.results}.{i}" for i in range(5)]
        for subject in large:
            await world.bus.store(subject, bytes(world.bus.max_payload))
        found = [s async for s, _ in world.bus.listing(world.work, f"{world.work}.>")]
        assert sorted(found) == sorted(subjects)
        sizes = [(s, len(d)) async for s, d in world.bus.listing(world.results, ">")]
        assert sizes == [(subject, world.bus.max_payload) for subject in large]

    play(scenario)


def test_removal_deletes_one_subject_and_nothing_else(play: Play) -> None:
    async def scenario(world: World) -> None:
        for rest in ("a", "a.b", "c"):
            await world.bus.store(f"{world.work}.{rest}", b"job")
        await world.bus.remove(world.work, f"{world.work}.a")
        await world.bus.remove(world.work, f"{world.work}.never")
        left = [subject async for subject, _ in world.bus.listing(world.work, ">")]
        assert left == [f"{world.work}.a.b", f"{world.work}.c"]

    play(scenario)


def test_depth_counts_what_matches_delivered_or_not(play: Play) -> None:
    async def scenario(world: World) -> None:
        for i in range(4):
            await world.bus.store(f"{world.work}.a.{i}", b"job")
        await world.bus.store(f"{world.work}.b.0", b"job")
        consumer = await world.bus.consumer(world.work, "c", f"{world.work}.a.*", 30)
        await consumer.fetch(2, 5)
        assert await world.bus.depth(world.work, f"{world.work}.a.*") == 4
        assert await world.bus.depth(world.work, f"{world.work}.b.0") == 1
        assert await world.bus.depth(world.work, f"{world.work}.c.*") == 0
        assert await world.bus.depth(world.work, f"{world.work}.>") == 5

    play(scenario)


def test_a_message_of_just_the_limit_is_stored_and_a_larger_one_refused(play: Play) -> None:
    async def scenario(world: World) -> None:
        subject, limit = f"{world.results}.a", world.bus.max_payload
        with pytest.raises(PayloadTooLarge) as caught:
            await world.bus.store(subject, bytes(limit + 1))
        assert caught.value.fields == {"subject": subject, "size": limit + 1, "limit": limit}
        assert await world.bus.store(subject, bytes(limit), {"k": "v" * 100}) == "stored"
        assert len(await world.bus.stored(subject) or b"") == limit

    play(scenario)


def test_a_subject_that_no_stream_holds_is_a_misconfiguration(play: Play) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(Misconfigured, match="no stream holds"):
            await world.bus.store(f"{world.prefix}nowhere.a", b"job")
        with pytest.raises(Misconfigured, match="no stream holds"):
            await world.bus.stored(f"{world.prefix}nowhere.a")

    play(scenario)


def test_a_stream_that_does_not_exist_is_a_misconfiguration(play: Play) -> None:
    async def scenario(world: World) -> None:
        stream = f"{world.prefix}absent"
        with pytest.raises(Misconfigured):
            await world.bus.depth(stream, "a")
        with pytest.raises(Misconfigured):
            await world.bus.remove(stream, "a")
        with pytest.raises(Misconfigured):
            await world.bus.consumer(stream, "c", "a", 30)
        with pytest.raises(Misconfigured):
            assert [item async for item in world.bus.listing(stream, "a")] == []

    play(scenario)


@pytest.mark.parametrize("rest", ["", "a b", "a..b", "*", ">", "a\r\nb"])
def test_nothing_is_stored_on_what_is_no_subject(play: Play, rest: str) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(InvalidRequest):
            await world.bus.store(f"{world.work}.{rest}", b"job")

    play(scenario)
