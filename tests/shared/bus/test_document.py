"""Small messages that many read and few change, and what processes shall hold among them."""

import asyncio

from shared import subjects
from shared.bus.document import follow
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.placement import placed, placement, within, without
from shared.bus.topology import TOPOLOGY
from shared.errors import InvalidRequest
from shared.messages.components import Placement
from tests.conftest import eventually, run
from tests.loadgen.virtual_time import run_virtually


async def new_bus() -> MemoryBus:
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    return bus


def test_changes_side_by_side_are_all_kept() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        names = [f"model-{k}" for k in range(8)]
        await asyncio.gather(*(placement(bus, "vae").change(without([name])) for name in names))
        found = await placement(bus, "vae").read()
        assert found is not None
        assert sorted(found.away) == names

    run(scenario())


def test_a_change_that_raises_changes_nothing() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        def refuse(before: Placement | None) -> Placement:
            raise InvalidRequest("model", "x", "none")

        for _ in range(2):
            try:
                await placement(bus, "vae").change(refuse)
            except InvalidRequest:
                assert await placement(bus, "vae").read() is None

    run(scenario())


def test_who_follows_sees_each_change_and_those_that_it_was_not_told_of() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        seen: list[Placement | None] = []

        async def look() -> None:
            seen.append(await placement(bus, "vae").read())

        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(bus, subjects.PLACED, look))

            async def looked(times: int) -> bool:
                return len(seen) >= times

            await eventually(lambda: looked(1))
            await placement(bus, "vae").change(without(["a"]))
            await eventually(lambda: looked(2))
            await bus.create(subjects.PLACEMENT, "denoiser", b"not a message")
            await eventually(lambda: looked(3))  # by itself
            following.cancel()
        assert seen == [None, Placement(away=("a",)), Placement(away=("a",))]

    run_virtually(scenario())


def test_what_cannot_be_read_ends_nobody_who_follows() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        looks = 0

        async def look() -> None:
            nonlocal looks
            looks += 1
            await placement(bus, "vae").read()

        await bus.create(subjects.PLACEMENT, "vae", b"not a message")
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(bus, subjects.PLACED, look))

            async def twice() -> bool:
                return looks == 2

            await eventually(twice)
            following.cancel()

    run_virtually(scenario())


def test_what_is_away_from_a_service_is_away_from_each_of_its_processes() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        assert await placed(bus, "vae-1", "vae") == Placement()
        await placement(bus, "vae").change(without(["a"]))
        await placement(bus, "vae-1").change(lambda _: Placement(held=("a", "b")))
        assert await placed(bus, "vae-1", "vae") == Placement(held=("a", "b"), away=("a",))
        assert await placed(bus, "vae-2", "vae") == Placement(away=("a",))

    run(scenario())


def test_a_name_that_comes_back_joins_what_is_held() -> None:
    assert within(["a"])(None) == Placement()
    awaited = within(["a"], awaited=True)(Placement(away=("a",), awaited=("b",)))
    assert awaited == Placement(awaited=("b", "a"))
    assert within(["a"])(awaited) == Placement(awaited=("b",))
    assert without(["a"])(awaited) == Placement(away=("a",), awaited=("b",))
    assert within(["a"])(Placement(away=("a", "b"))) == Placement(away=("b",))
    assert within(["a"])(Placement(held=("b",))) == Placement(held=("b", "a"))
    assert without(["a"])(Placement(held=("b",), away=("a",))) == Placement(
        held=("b",), away=("a",)
    )
