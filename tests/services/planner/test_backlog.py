"""Submissions wait in a planner until somebody has room, and are refused when they would be late.
On the fake bus, with denoisers that only say how they stand."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from services.planner.planner import Planner
from shared import subjects
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.client import Darkroom
from shared.config import Settings
from shared.messages import (
    ComponentReport,
    CostReport,
    JobCancelled,
    JobFailed,
    LoadReport,
    NodeProgress,
    RowReport,
    WorkReport,
    decode_event,
    decode_outcome,
    encode,
)
from shared.telemetry.metrics import Metrics
from tests.conftest import eventually, run
from tests.helpers.factories import catalogue, request

SETTINGS = Settings(ack_wait=1.0, poll_seconds=0.1, deadline_margin=0.0)
MODEL = catalogue().default.name
STEP = 0.1
"""Seconds, of one row or of many."""


def denoiser(*steps: int, due: float | None = None, max_rows: int = 1) -> LoadReport:
    """It takes `max_rows` rows at a time, and has rows of so many steps in hand, which are to be
    finished `due` seconds from now, if at any time."""
    work, now = WorkReport(256, 256 * 256), time.time()
    rows = tuple(
        RowReport(
            job_id=f"other-{k}",
            steps_left=left,
            work=work,
            height=16,
            width=16,
            due=None if due is None else now + due,
        )
        for k, left in enumerate(steps)
    )
    one = ComponentReport(
        kind="denoise",
        model=MODEL,
        cost=CostReport(fixed=STEP),
        count=len(rows),
        seconds=STEP * sum(steps),
        max_rows=max_rows,
        rows=rows,
    )
    return LoadReport(process="denoiser-1", at=now, components=(one,))


BUSY = denoiser(600)


class Fleet:
    """Planners, and what a denoiser says."""

    def __init__(self, broker: MemoryBroker, bus: MemoryBus, group: asyncio.TaskGroup) -> None:
        self.bus, self._broker, self._group = bus, broker, group
        self.stops: list[asyncio.Event] = []
        self.planners: list[asyncio.Task[None]] = []
        self._report: LoadReport | None = None

    async def planner(self, settings: Settings = SETTINGS) -> None:
        name = f"planner-{len(self.stops)}"
        planner = Planner(
            self._broker.connect(name), catalogue(), settings, Metrics("planner"), name
        )
        stop, ready = asyncio.Event(), asyncio.Event()
        self.stops.append(stop)
        self.planners.append(self._group.create_task(planner.run(stop, ready.set)))
        await ready.wait()
        await asyncio.sleep(0)  # its backlog listens

    async def say(self, report: LoadReport) -> None:
        """From now on."""
        self._report = report
        await self.bus.publish(subjects.load(report.process), encode(report))

    async def repeat(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            if self._report is not None:
                await self.say(self._report)

    async def submit(self, job_id: str, **fields: object) -> None:
        wanted = request(job_id=job_id, steps=10, guidance=1.0, **fields)
        await self.bus.store(subjects.submit(job_id), encode(wanted))

    async def ended(self, job_id: str) -> object:
        async def stored() -> bool:
            return await self.bus.stored(subjects.result(job_id)) is not None

        await eventually(stored)
        data = await self.bus.stored(subjects.result(job_id))
        assert data is not None
        return decode_outcome(data)

    async def released(self, job_id: str) -> bool:
        return await self.bus.get(subjects.RECORDS, job_id) is not None

    async def wait(self, names: list[str]) -> bool:
        return None not in [await self.place(name) for name in names]

    async def place(self, job_id: str) -> int | None:
        async with Darkroom(self.bus) as client:
            return (await client.waiting(job_id)).position


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    broker = MemoryBroker()
    bus = broker.connect("test")
    await bus.ensure(TOPOLOGY)
    async with asyncio.TaskGroup() as group:
        found = Fleet(broker, bus, group)
        await found.planner()
        repeating = group.create_task(found.repeat())
        try:
            yield found
        finally:
            repeating.cancel()
            for stop in found.stops:
                stop.set()


def test_a_job_that_would_be_late_is_refused_at_once_with_the_seconds_it_would_take() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            await here.say(denoiser())
            await here.submit("late", deadline=time.time() + 0.5)
            outcome = await here.ended("late")
            assert isinstance(outcome, JobFailed)
            assert outcome.failure.code == "deadline_unreachable"
            assert outcome.failure.fields["seconds"] == 1.0
            assert not await here.released("late")

    run(scenario())


def test_a_job_that_can_be_in_time_is_released_at_once() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            await here.say(denoiser())
            await here.submit("early", deadline=time.time() + 30.0)
            await eventually(lambda: here.released("early"))

    run(scenario())


def test_jobs_without_a_deadline_wait_for_room_and_are_told_their_places() -> None:
    async def scenario() -> None:
        async with fleet() as here, here.bus.subscribe(subjects.event("second")) as events:
            await here.say(BUSY)
            await here.submit("first")
            await eventually(lambda: _is(here.place("first"), 1))
            await here.submit("second")
            await eventually(lambda: _is(here.place("second"), 2))
            assert not await here.released("first")
            event = decode_event((await anext(aiter(events))).data)
            assert isinstance(event, NodeProgress)
            assert (event.node, event.state, event.position) == ("plan", "started", 2)
            await here.say(denoiser())
            await eventually(lambda: here.released("first"))
            assert not await here.released("second")

    run(scenario())


def test_cancelling_a_job_that_waits_ends_it_and_nothing_was_opened_for_it() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            await here.planner()  # whichever answers
            await here.say(BUSY)
            await here.submit("unwanted")
            await eventually(lambda: _is(here.place("unwanted"), 1))
            async with Darkroom(here.bus) as client:
                assert (await client.cancel("unwanted")).status == "cancelled"
            assert isinstance(await here.ended("unwanted"), JobCancelled)
            assert not await here.released("unwanted")
            await eventually(lambda: _is(here.bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))

    run(scenario())


def test_what_a_planner_that_leaves_holds_another_one_has_at_once() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            await here.say(BUSY)
            await here.submit("waits")
            await eventually(lambda: _is(here.place("waits"), 1))
            await here.planner()
            await here.say(BUSY)
            here.stops[0].set()
            await eventually(lambda: _is(here.place("waits"), 1))
            await here.say(denoiser())
            await eventually(lambda: here.released("waits"))

    run(scenario())


def test_what_a_planner_that_dies_holds_comes_to_another_one_once() -> None:
    names = [f"waits-{k}" for k in range(12)]

    async def scenario() -> None:
        async with fleet() as here:
            await here.say(BUSY)
            for name in names:
                await here.submit(name)
            await eventually(lambda: here.wait(names))
            here.planners[0].cancel()
            await here.planner()
            await here.say(denoiser(max_rows=64))
            for name in names:
                await eventually(lambda name=name: here.released(name))  # type: ignore[misc]
            await eventually(lambda: _is(here.bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))
            assert await here.bus.depth(subjects.WORK, subjects.ALL_WORK) == len(names)

    run(scenario())


def test_a_promise_that_cannot_be_kept_any_more_is_taken_back_before_it_costs_anything() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            await here.say(denoiser(20, due=2.5))
            await here.submit("waits", deadline=time.time() + 4.0)
            await eventually(lambda: _is(here.place("waits"), 1))
            await here.say(denoiser(600, due=70.0))
            outcome = await here.ended("waits")
            assert isinstance(outcome, JobFailed)
            assert outcome.failure.code == "deadline_unreachable"

    run(scenario())


def test_the_bound_of_the_backlog_refuses_by_name() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            here.stops[0].set()
            await here.planner(Settings(ack_wait=1.0, poll_seconds=0.1, user_backlog_jobs=1))
            await here.say(BUSY)
            await here.submit("first", user="somebody")
            await eventually(lambda: _is(here.place("first"), 1))
            await here.submit("second", user="somebody")
            outcome = await here.ended("second")
            assert isinstance(outcome, JobFailed)
            assert outcome.failure.code == "queue_full"
            assert outcome.failure.fields["queue"] == "the planner's backlog (jobs of one user)"

    run(scenario())


def test_before_anybody_has_said_how_it_stands_jobs_are_released() -> None:
    async def scenario() -> None:
        async with fleet() as here:
            await here.submit("early")
            await eventually(lambda: here.released("early"))

    run(scenario())


async def _is(value: Awaitable[object], expected: object) -> bool:
    return bool(await value == expected)
