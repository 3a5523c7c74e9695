"""The pull loop: priorities, room, redelivery, signs of life, draining. On the shipped fake bus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

from shared import subjects
from shared.bus.base import Delivery
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.readiness import Refusal
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.errors import BusUnavailable
from shared.service_classes import CLASSES
from shared.worker.pull import Puller, PullLoop, Source, Work, willing
from tests.conftest import eventually, run
from tests.loadgen.virtual_time import run_virtually

ACK_WAIT = 0.3


async def new_bus() -> MemoryBus:
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    return bus


async def put(bus: MemoryBus, name: str, service_class: str = "standard") -> None:
    await bus.store(subjects.work("encode", "m", service_class, name, "encode", 1), name.encode())


async def give_back(work: Work) -> None:
    await work.delivery.retry(0.0)


@asynccontextmanager
async def pulling(
    bus: MemoryBus,
    handle: Callable[[Work], Awaitable[None]],
    capacity: int = 1,
    burst_capacity: int = 0,
    stall_seconds: float = 60.0,
    drain_seconds: float = 5.0,
    drain: Callable[[], Coroutine[None, None, None]] | None = None,
    hung: list[str] | None = None,
    load: Callable[[int], int] = int,
    refusal: Callable[[], Refusal | None] = willing,
    also: Sequence[Source] = (),
) -> AsyncIterator[PullLoop]:
    sources = [
        Source(
            await bus.consumer(
                subjects.WORK,
                subjects.work_consumer("encode", "m", c),
                subjects.work_filter("encode", "m", c),
                ACK_WAIT,
            ),
            capacity + (burst_capacity if c == "interactive" else 0),
        )
        for c in CLASSES
    ]

    async def nothing() -> None:
        pass

    loop = PullLoop(
        [*sources, *also],
        Settings(
            ack_wait=ACK_WAIT,
            stall_seconds=stall_seconds,
            drain_seconds=drain_seconds,
            poll_seconds=0.1,
        ),
        Puller(
            handle=handle,
            decline=give_back,
            drain=drain or nothing,
            on_stall=(hung if hung is not None else []).append,
            load=load,
            refusal=refusal,
        ),
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(loop.run(stop))
        try:
            yield loop
        finally:
            stop.set()


def test_work_is_served_in_order_of_its_class() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        order: list[str] = []

        async def handle(work: Work) -> None:
            order.append(work.delivery.data.decode())
            await work.delivery.ack()

        for service_class in ("batch", "standard", "interactive"):
            await put(bus, service_class, service_class)
        async with pulling(bus, handle):
            await eventually(lambda: _true(len(order) == 3))
        assert order == ["interactive", "standard", "batch"]

    run_virtually(scenario())


def test_no_more_work_is_taken_than_there_is_room() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        most, now, done = 0, 0, 0

        async def handle(work: Work) -> None:
            nonlocal most, now, done
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            done += 1
            await work.delivery.ack()

        for number in range(30):
            await put(bus, f"j{number}")
        async with pulling(bus, handle, capacity=3):
            await eventually(lambda: _true(done == 30))
        assert most == 3

    run_virtually(scenario())


def test_work_that_raises_is_delivered_again_and_harms_nobody_else() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        tries: dict[str, int] = {}

        async def handle(work: Work) -> None:
            name = work.delivery.data.decode()
            tries[name] = tries.get(name, 0) + 1
            if name == "bad" and tries[name] == 1:
                raise RuntimeError("once")
            await work.delivery.ack()

        await put(bus, "bad")
        await put(bus, "good")
        async with pulling(bus, handle, capacity=2) as loop:
            await eventually(lambda: _true(tries == {"bad": 2, "good": 1}))
            assert loop.statistics().failed == 1

    run_virtually(scenario())


def test_work_that_makes_progress_is_kept_beyond_the_acknowledgement_wait() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started = 0

        async def handle(work: Work) -> None:
            nonlocal started
            started += 1
            for _ in range(5):
                await asyncio.sleep(ACK_WAIT / 2)
                work.progressed()
            await work.delivery.ack()

        await put(bus, "long")
        async with pulling(bus, handle, capacity=2) as loop:
            await eventually(lambda: _true(loop.statistics().handled == 1))
        assert started == 1

    run_virtually(scenario())


def test_work_without_progress_is_given_to_somebody_else() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        first = asyncio.Event()
        taken = asyncio.Event()

        async def hangs(work: Work) -> None:
            first.set()
            await asyncio.Event().wait()

        async def works(work: Work) -> None:
            taken.set()
            await work.delivery.ack()

        await put(bus, "stuck")
        async with pulling(bus, hangs, stall_seconds=0.0, drain_seconds=0.0):
            await first.wait()
            async with pulling(bus, works):
                await taken.wait()

    run_virtually(scenario())


async def nothing_to_drain() -> None:
    pass


async def source_of(bus: MemoryBus, model: str, capacity: int = 4) -> Source:
    name = subjects.work_consumer("encode", model, "standard")
    queue = subjects.work_filter("encode", model, "standard")
    return Source(await bus.consumer(subjects.WORK, name, queue, ACK_WAIT), capacity)


async def put_for(bus: MemoryBus, model: str, name: str) -> None:
    await bus.store(subjects.work("encode", model, "standard", name, "encode", 1), name.encode())


def test_queues_are_taken_in_and_let_go_while_work_of_others_runs() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        running, done = asyncio.Event(), asyncio.Event()
        handled: list[str] = []

        async def handle(work: Work) -> None:
            name = work.delivery.data.decode()
            if name == "long":
                running.set()
                await done.wait()
            handled.append(name)
            await work.delivery.ack()

        async with pulling(bus, handle, capacity=4) as loop:
            await put(bus, "long")
            await running.wait()
            before, other = loop._sources, await source_of(bus, "other")
            await put_for(bus, "other", "first")
            loop.pull_from([*before, other])
            await eventually(lambda: _true("first" in handled))
            loop.pull_from(before)
            await loop.let_go([other], nothing_to_drain)
            await put_for(bus, "other", "second")
            await asyncio.sleep(1.0)  # of virtual time: the poll that waited has given it back
            assert handled == ["first"]
            done.set()
            await eventually(lambda: _true("long" in handled))
            loop.pull_from([*before, other])
            await eventually(lambda: _true("second" in handled))

    run_virtually(scenario())


def test_letting_go_waits_for_what_is_in_hand_and_cancels_what_takes_too_long() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        ended: list[str] = []
        drained = asyncio.Event()

        async def handle(work: Work) -> None:
            name = work.delivery.data.decode()
            try:
                await (drained.wait() if name == "soon" else asyncio.Event().wait())
                ended.append(name)
                await work.delivery.ack()
            except asyncio.CancelledError:
                ended.append(f"{name} cancelled")
                raise

        async def drain() -> None:
            drained.set()

        async with pulling(bus, handle, capacity=4, drain_seconds=2.0) as loop:
            before, other = loop._sources, await source_of(bus, "other")
            loop.pull_from([*before, other])
            for name in ("soon", "never"):
                await put_for(bus, "other", name)
            await put(bus, "another")
            await eventually(lambda: _true(loop.statistics().in_flight == 3))
            loop.pull_from(before)
            await loop.let_go([other], drain)
            assert ended == ["soon", "never cancelled"]
            assert loop.statistics().in_flight == 1

    run_virtually(scenario())


def test_a_loop_without_any_queue_waits_for_one() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        handled: list[str] = []

        async def handle(work: Work) -> None:
            handled.append(work.delivery.data.decode())
            await work.delivery.ack()

        async with pulling(bus, handle) as loop:
            loop.pull_from([])
            assert loop.statistics().capacity == 0
            assert loop.refusal() is None
            other = await source_of(bus, "other")
            await put_for(bus, "other", "late")
            loop.pull_from([other])
            await eventually(lambda: _true(handled == ["late"]))

    run_virtually(scenario())


def test_what_is_in_flight_when_the_loop_stops_may_finish() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started, finished = asyncio.Event(), False

        async def handle(work: Work) -> None:
            nonlocal finished
            started.set()
            await asyncio.sleep(0.05)
            await work.delivery.ack()
            finished = True

        await put(bus, "last")
        async with pulling(bus, handle):
            await started.wait()
        assert finished
        assert await bus.depth(subjects.WORK, subjects.ALL_WORK) == 0

    run_virtually(scenario())


def test_urgent_work_is_taken_beyond_the_capacity_for_the_rest() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        running: list[str] = []

        async def handle(work: Work) -> None:
            running.append(work.delivery.data.decode())
            await asyncio.Event().wait()

        for name in ("first", "second", "third"):
            await put(bus, name)
        async with pulling(bus, handle, capacity=2, burst_capacity=1, drain_seconds=0.0):
            await eventually(lambda: _true(len(running) >= 2))
            await put(bus, "urgent", "interactive")
            await eventually(lambda: _true("urgent" in running))
            assert sorted(running) == ["first", "second", "urgent"]

    run_virtually(scenario())


def test_work_that_makes_no_progress_long_after_others_have_it_is_reported_to_hang() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        hung: list[str] = []

        async def hangs(work: Work) -> None:
            await asyncio.Event().wait()

        await put(bus, "stuck")
        async with pulling(bus, hangs, stall_seconds=0.0, drain_seconds=0.0, hung=hung):
            await eventually(lambda: _true(bool(hung)))
        assert set(hung) == {subjects.work("encode", "m", "standard", "stuck", "encode", 1)}

    run_virtually(scenario())


def test_the_handler_is_told_to_drain_while_what_runs_may_still_finish() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started, drained = asyncio.Event(), asyncio.Event()

        async def handle(work: Work) -> None:
            started.set()
            await drained.wait()
            await work.delivery.ack()

        async def drain() -> None:
            drained.set()

        await put(bus, "last")
        async with pulling(bus, handle, drain=drain):
            await started.wait()
        assert await bus.depth(subjects.WORK, subjects.ALL_WORK) == 0

    run_virtually(scenario())


def test_a_pull_tells_what_is_made_of_the_number_in_hand() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        seen: set[int] = set()

        async def handle(work: Work) -> None:
            await asyncio.Event().wait()

        def load(in_hand: int) -> int:
            seen.add(in_hand)
            return 9 - in_hand

        async with pulling(bus, handle, capacity=3, drain_seconds=0.0, load=load):
            await eventually(lambda: _true(seen == {0}))
            await put(bus, "j1")
            await eventually(lambda: _true(seen == {0, 1}))

    run_virtually(scenario())


def test_full_of_work_is_working_and_a_cause_shows_once_nothing_is_left_to_finish() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        started, finish = asyncio.Event(), asyncio.Event()
        cause: list[Refusal | None] = [None]

        async def handle(work: Work) -> None:
            started.set()
            await finish.wait()
            await work.delivery.ack()

        await put(bus, "one")
        async with pulling(bus, handle, refusal=lambda: cause[0]) as loop:
            await started.wait()
            assert loop.refusal() is None
            cause[0] = Refusal("no memory", lasting=True)
            assert loop.refusal() is None
            finish.set()
            await eventually(lambda: _true(loop.refusal() == cause[0]))
            cause[0] = None
            assert loop.refusal() is None

    run_virtually(scenario())


def test_nothing_is_taken_while_there_is_a_cause_and_all_of_it_once_there_is_none() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        cause: list[Refusal | None] = [Refusal("no memory")]
        handled: list[str] = []
        asked = 0

        def refusal() -> Refusal | None:
            nonlocal asked
            asked += 1
            return cause[0]

        async def handle(work: Work) -> None:
            handled.append(work.delivery.subject)
            await work.delivery.ack()

        await put(bus, "one")
        async with pulling(bus, handle, refusal=refusal):
            await eventually(lambda: _true(asked > 3))
            assert not handled
            cause[0] = None
            await eventually(lambda: _true(len(handled) == 1))

    run_virtually(scenario())


def test_work_that_makes_no_progress_is_named_as_the_cause() -> None:
    async def scenario() -> None:
        bus = await new_bus()

        async def hangs(work: Work) -> None:
            await asyncio.Event().wait()

        await put(bus, "stuck")
        async with pulling(bus, hangs, stall_seconds=0.0, drain_seconds=0.0) as loop:
            await eventually(lambda: _true(loop.refusal() is not None))
            refusal = loop.refusal()
        assert refusal is not None
        assert "stuck" in refusal.reason
        assert "DARKROOM_STALL_SECONDS" in refusal.reason
        assert not refusal.lasting  # the process ends itself, and another takes its place

    run_virtually(scenario())


def test_a_queue_that_cannot_be_pulled_from_is_the_cause_until_it_can_be() -> None:
    async def scenario() -> None:
        bus = await new_bus()
        away = True

        class Faulty:
            async def fetch(self, limit: int, wait: float, load: int = 0) -> Sequence[Delivery]:
                await asyncio.sleep(0)
                if away:
                    raise BusUnavailable("the queue", "away")
                return ()

            async def pending(self) -> int:
                return 0

        async def handle(work: Work) -> None: ...

        async with pulling(bus, handle, also=[Source(Faulty(), 1)]) as loop:
            await eventually(lambda: _true(loop.refusal() is not None))
            refusal = loop.refusal()
            assert refusal is not None
            assert "the queue: away" in refusal.reason
            away = False
            await eventually(lambda: _true(loop.refusal() is None))

    run(scenario())  # who is refused at once never lets virtual time pass


async def _true(value: bool) -> bool:
    return value
