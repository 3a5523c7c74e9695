"""Placement services on the fake bus, with processes that only say how they stand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from services.placement.demand import DemandTable
from services.placement.fleet import holders, models_of, process_of, said_after, without_away
from services.placement.lease import KEY, LEASE_SECONDS, RENEW_SECONDS, LeaseHolder
from services.placement.service import PlacementService
from shared import subjects
from shared.bus.base import Entry, ServiceInfo
from shared.bus.discovery import BUDGET, PROCESS, Service
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.placement import placement, within, without
from shared.bus.readiness import Refusal
from shared.bus.topology import TOPOLOGY
from shared.errors import BusUnavailable
from shared.messages import (
    AskedReport,
    ComponentReport,
    CostReport,
    LoadReport,
    PromiseReport,
    WorkReport,
    encode,
)
from shared.messages.components import ComponentState, Placement
from shared.policy.placement.state import Demand, Move
from shared.policy.release.jobs import Component
from shared.services import bus_name
from tests.loadgen.virtual_time import run_virtually

GB = 1 << 30
STEP = 0.5


async def new_bus() -> MemoryBus:
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    return bus


def denoiser(name: str, held: Sequence[str] = ("a",), budget: int = 12 * GB) -> Service:
    """It holds one of two models at a time."""
    return Service(
        service="denoiser",
        pid=1,
        instance=name,
        version="1",
        models=tuple(held),
        http="",
        host="here",
        refusal=None,
        process=name,
        budget=budget,
        components=tuple(
            ComponentState(
                name=model, state="loaded" if model in held else "on disk", bytes=10 * GB
            )
            for model in ("a", "b")
        ),
    )


@asynccontextmanager
async def answering(bus: MemoryBus, one: Service) -> AsyncIterator[None]:
    info = ServiceInfo(
        name=bus_name(one.service),
        version="1",
        description="",
        metadata={
            "service": one.service,
            "pid": "1",
            PROCESS: one.process,
            BUDGET: str(one.budget),
        },
    )
    states = [
        {"name": each.name, "state": each.state, "bytes": each.bytes} for each in one.components
    ]
    async with bus.service(info, lambda: {"components": states}):
        yield


def asked(planner: str, model: str, jobs: int, waiting: int = 0) -> PromiseReport:
    """`jobs` since it started, of ten steps each."""
    return PromiseReport(
        process=planner,
        at=0.0,
        jobs=(),
        asked=(
            AskedReport(
                kind="denoise",
                model=model,
                jobs=jobs,
                steps=10 * jobs,
                work=WorkReport(100, 100),
                waiting=waiting,
                left=12.0,
            ),
        ),
    )


def measured(*models: str) -> LoadReport:
    return LoadReport(
        process="d",
        at=0.0,
        components=tuple(
            ComponentReport(kind="denoise", model=model, cost=CostReport(fixed=STEP))
            for model in models
        ),
    )


def test_what_planners_count_is_counted_once_and_priced_as_processes_measure_it() -> None:
    table = DemandTable()
    table.take(measured("a"), 0.0)
    table.take(asked("p", "a", 100), 0.0)  # before anybody looked
    assert not table.demand(0.0)["denoise", "a"].wanted
    table.take(asked("p", "a", 106, waiting=30), 1.0)
    table.take(asked("q", "a", 7), 1.0)
    found = table.demand(2.0)["denoise", "a"]
    assert found.rate > 0.0
    assert found.seconds == 10 * STEP
    assert found.backlog == 30 * STEP
    assert found.slack == 12.0 - 10 * STEP
    later = table.demand(12.0)["denoise", "a"]
    assert later.rate < found.rate
    assert later.backlog == 0.0  # nobody has said so for long


def test_a_planner_that_starts_anew_counts_from_nothing() -> None:
    table = DemandTable()
    table.take(asked("p", "a", 100), 0.0)
    table.demand(0.0)
    table.take(asked("p", "a", 3), 1.0)
    table.demand(1.0)
    table.take(asked("p", "a", 5), 2.0)
    assert table.demand(2.0)["denoise", "a"].rate > 0.0


def test_only_processes_that_can_be_told_are_placed_on() -> None:
    old = replace(denoiser("old"), process="")
    gateway = replace(denoiser("g"), service="gateway")
    broken = replace(denoiser("x"), refusal=Refusal("no memory", lasting=True))
    leaving = replace(denoiser("y"), refusal=Refusal("it is leaving"))
    assert [one.process for one in holders([old, gateway, broken, leaving, denoiser("d")])] == [
        "y",
        "d",
    ]


def test_what_was_said_counts_before_what_is_held_and_what_is_away_stays_away() -> None:
    one = denoiser("d")
    assert process_of(one, None).holds == {("denoise", "a")}
    assert process_of(one, Placement(held=("b",))).holds == {("denoise", "b")}
    assert process_of(one, Placement(held=("a", "b"), away=("b",))).holds == {("denoise", "a")}
    move = Move("d", loads=(("denoise", "b"),), unloads=(("denoise", "a"),))
    said = said_after(move, process_of(one, None), Placement(away=("c",)), {})
    assert said == Placement(held=("b",), away=("c",))
    waits: dict[Component, Demand] = {("denoise", "b"): Demand(rate=1.0, seconds=1.0, backlog=2.0)}
    said = said_after(move, process_of(one, None), None, waits)
    assert said == Placement(held=("b",), awaited=("b",))
    models = models_of([one])
    assert {model.component[1] for model in models} == {"a", "b"}
    left = without_away(models, {"denoiser": Placement(away=("b",)), "vae": None})
    assert [model.component for model in left] == [("denoise", "a")]


def test_one_holds_the_lease_and_another_takes_it_over_within_three_seconds() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        first, second = LeaseHolder(bus, "first"), LeaseHolder(bus, "second")
        assert await first.renew(0.0)
        assert not await second.renew(0.1)
        now = 0.1
        for _ in range(20):  # as long as it is renewed
            now += RENEW_SECONDS
            assert await first.renew(now)
            assert not await second.renew(now)
        died = now
        while not await second.renew(now):
            now += RENEW_SECONDS
        assert LEASE_SECONDS <= now - died < 3.0
        assert not await first.renew(now)
        assert (first.holds(now), second.holds(now)) == (False, True)

    run_virtually(scenario())


def test_who_is_cut_off_from_the_bus_holds_the_lease_no_longer_than_others_wait_for_it() -> None:
    class CutOff(MemoryBus):
        away = False

        async def get(self, bucket: str, key: str) -> Entry | None:
            if self.away:
                raise BusUnavailable("reading", "it is away")
            return await super().get(bucket, key)

    async def scenario() -> None:
        broker = MemoryBroker()
        bus = CutOff(broker, "first")
        await bus.ensure(TOPOLOGY)
        first, second = LeaseHolder(bus, "first"), LeaseHolder(broker.connect("second"), "second")
        assert await first.renew(10.0)
        assert not await second.renew(10.0)
        bus.away = True
        with pytest.raises(BusUnavailable):
            await first.renew(10.0 + RENEW_SECONDS)
        last = 10.0 + LEASE_SECONDS
        assert first.holds(last - 0.01)
        assert not first.holds(last)
        assert await second.renew(last)

    run_virtually(scenario())


def test_a_lease_that_cannot_be_read_is_taken_over_like_one_that_nobody_renews() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await bus.create(subjects.PLACEMENT, KEY, b"\xc1")
        one = LeaseHolder(bus, "one")
        assert not await one.renew(0.0)
        assert await one.renew(LEASE_SECONDS)
        assert await one.renew(LEASE_SECONDS + RENEW_SECONDS)

    run_virtually(scenario())


def test_of_two_who_take_it_over_one_succeeds() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await LeaseHolder(bus, "gone").renew(0.0)
        others = [LeaseHolder(bus, f"other-{number}") for number in range(4)]
        for now in (0.0, LEASE_SECONDS):
            found = await asyncio.gather(*(one.renew(now) for one in others))
        assert sum(found) == 1

    run_virtually(scenario())


@asynccontextmanager
async def placing(bus: MemoryBus, *names: str) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    tasks = {
        name: asyncio.create_task(
            PlacementService(bus, name).run(asyncio.Event(), lambda: None), name=name
        )
        for name in names
    }
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def demand(
    bus: MemoryBus, seconds: int, a: int, b: int, begun: tuple[int, int] = (0, 0)
) -> tuple[int, int]:
    """In each second so many jobs ask for each model. `begun`: jobs before that; returns those
    after it."""
    for second in range(1, seconds + 1):
        await bus.publish(subjects.load("d"), encode(measured("a", "b")))
        for model, before, jobs in (("a", begun[0], a), ("b", begun[1], b)):
            report = asked(f"planner-{model}", model, before + jobs * second)
            await bus.publish(subjects.load("planner"), encode(report))
        await asyncio.sleep(1.0)
    return begun[0] + a * seconds, begun[1] + b * seconds


async def held(bus: MemoryBus, process: str) -> tuple[str, ...] | None:
    said = await placement(bus, process).read()
    return said.held if said else None


def test_what_is_asked_for_and_nobody_holds_is_loaded_in_place_of_what_nobody_wants() -> None:
    """Nothing is said before somebody asks; afterwards what is wanted stays where it is."""

    async def scenario() -> None:
        bus = await new_bus()
        async with AsyncExitStack() as stack:
            for name in ("d1", "d2"):
                await stack.enter_async_context(answering(bus, denoiser(name)))
            await stack.enter_async_context(placing(bus, "one", "two"))
            await asyncio.sleep(5.0)
            assert [await held(bus, name) for name in ("d1", "d2")] == [None, None]
            begun = await demand(bus, 20, 0, 1)
            said = [await held(bus, name) for name in ("d1", "d2")]
            assert ("b",) in said
            await demand(bus, 20, 0, 1, begun)
            assert [await held(bus, name) for name in ("d1", "d2")] == said

    run_virtually(scenario())


def test_the_next_one_goes_on_where_one_ended() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        async with AsyncExitStack() as stack:
            for name in ("d1", "d2"):
                await stack.enter_async_context(answering(bus, denoiser(name)))
            services = await stack.enter_async_context(placing(bus, "one", "two"))
            begun = await demand(bus, 5, 1, 0)
            services["one"].cancel()
            await demand(bus, 20, 0, 1, begun)
            assert ("b",) in [await held(bus, name) for name in ("d1", "d2")]

    run_virtually(scenario())


def test_what_an_operator_took_away_is_not_brought_back() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        await placement(bus, "denoiser").change(without(["b"]))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(answering(bus, denoiser("d1")))
            await stack.enter_async_context(placing(bus, "one"))
            begun = await demand(bus, 10, 0, 1)
            assert await held(bus, "d1") is None
            await placement(bus, "denoiser").change(within(["b"]))
            await demand(bus, 10, 0, 1, begun)
            assert await held(bus, "d1") == ("b",)

    run_virtually(scenario())
