"""What every bus promises of buckets: keys with revisions, compare-and-set, age."""

import asyncio

import pytest

from shared.bus.base import Bus
from shared.errors import InvalidRequest, Misconfigured, PayloadTooLarge, RevisionConflict
from tests.conftest import eventually
from tests.contracts.conftest import Play, World


def test_a_created_key_is_read_with_its_revision(play: Play) -> None:
    async def scenario(world: World) -> None:
        revision = await world.bus.create(world.bucket, "job", b"record")
        entry = await world.bus.get(world.bucket, "job")
        assert entry is not None
        assert (entry.key, entry.value, entry.revision) == ("job", b"record", revision)
        assert await world.bus.get(world.bucket, "other") is None

    play(scenario)


def test_an_empty_value_is_a_value(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.create(world.bucket, "job", b"")
        entry = await world.bus.get(world.bucket, "job")
        assert entry is not None
        assert entry.value == b""

    play(scenario)


def test_a_key_is_created_once(play: Play) -> None:
    async def scenario(world: World) -> None:
        await world.bus.create(world.bucket, "job", b"first")
        with pytest.raises(RevisionConflict):
            await world.bus.create(world.bucket, "job", b"second")
        entry = await world.bus.get(world.bucket, "job")
        assert entry is not None
        assert entry.value == b"first"

    play(scenario)


def test_an_update_needs_the_latest_revision(play: Play) -> None:
    async def scenario(world: World) -> None:
        first = await world.bus.create(world.bucket, "job", b"1")
        second = await world.bus.update(world.bucket, "job", b"2", first)
        assert second > first
        with pytest.raises(RevisionConflict) as caught:
            await world.bus.update(world.bucket, "job", b"3", first)
        assert caught.value.fields == {"key": "job", "revision": first}
        entry = await world.bus.get(world.bucket, "job")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", second)

    play(scenario)


def test_a_key_that_does_not_exist_cannot_be_updated(play: Play) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(RevisionConflict):
            await world.bus.update(world.bucket, "job", b"1", 7)

    play(scenario)


def test_other_keys_do_not_disturb_a_revision(play: Play) -> None:
    async def scenario(world: World) -> None:
        revision = await world.bus.create(world.bucket, "job", b"1")
        await world.bus.create(world.bucket, "other", b"1")
        await world.bus.update(world.bucket, "job", b"2", revision)

    play(scenario)


def test_of_many_who_update_at_once_one_succeeds_each_time(play: Play) -> None:
    async def scenario(world: World) -> None:
        handles = [world.bus, await world.connect(), await world.connect()]
        await world.bus.create(world.bucket, "count", b"0")

        async def increment(bus: Bus, times: int) -> None:
            while times:
                entry = await bus.get(world.bucket, "count")
                assert entry is not None
                value = b"%d" % (int(entry.value) + 1)
                try:
                    await bus.update(world.bucket, "count", value, entry.revision)
                    times -= 1
                except RevisionConflict:
                    continue

        await asyncio.gather(*(increment(bus, 10) for bus in handles))
        entry = await world.bus.get(world.bucket, "count")
        assert entry is not None
        assert entry.value == b"30"

    play(scenario)


def test_keys_are_those_that_exist(play: Play) -> None:
    async def scenario(world: World) -> None:
        assert await world.bus.keys(world.bucket) == []
        for key in ("a", "b", "c.d"):
            await world.bus.create(world.bucket, key, b"record")
        assert sorted(await world.bus.keys(world.bucket)) == ["a", "b", "c.d"]

    play(scenario)


def test_a_value_leaves_when_it_reaches_the_age_of_its_bucket(play: Play) -> None:
    async def scenario(world: World) -> None:
        bucket = await world.forgetful(0.5)
        await world.bus.create(bucket, "job", b"record")

        async def gone() -> bool:
            return await world.bus.get(bucket, "job") is None

        await eventually(gone)
        assert await world.bus.keys(bucket) == []
        await world.bus.create(bucket, "job", b"record")

    play(scenario)


def test_a_value_over_the_limit_is_refused(play: Play) -> None:
    async def scenario(world: World) -> None:
        large = bytes(world.bus.max_payload + 1)
        with pytest.raises(PayloadTooLarge):
            await world.bus.create(world.bucket, "job", large)
        revision = await world.bus.create(world.bucket, "job", b"record")
        with pytest.raises(PayloadTooLarge):
            await world.bus.update(world.bucket, "job", large, revision)

    play(scenario)


def test_a_bucket_that_does_not_exist_is_a_misconfiguration(play: Play) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(Misconfigured):
            await world.bus.get(f"{world.prefix}absent", "job")
        with pytest.raises(Misconfigured):
            await world.bus.create(f"{world.prefix}absent", "job", b"record")
        with pytest.raises(Misconfigured):
            await world.bus.keys(f"{world.prefix}absent")

    play(scenario)


def test_a_key_with_white_space_is_refused(play: Play) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(InvalidRequest):
            await world.bus.get(world.bucket, "a b")

    play(scenario)
