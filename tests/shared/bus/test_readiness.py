"""One answer to "does it take work?", from the process that knows to everybody who asks."""

import asyncio
from collections.abc import Callable

import pytest

from shared.bus.discovery import ready_pids, services
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.readiness import REFUSAL, Refusal, common
from shared.config import Settings
from shared.process.process import Process
from shared.telemetry.metrics import Metrics
from tests.conftest import eventually, run

LASTING, PASSING = Refusal("no memory", lasting=True), Refusal("leaving")


@pytest.mark.parametrize(
    ("refusals", "shared_by_all"),
    [
        ([], None),
        ([None], None),
        ([LASTING], LASTING),
        ([LASTING, None], None),
        ([LASTING, LASTING], LASTING),
        ([LASTING, PASSING], PASSING),
        ([PASSING, LASTING], PASSING),
    ],
)
def test_one_that_takes_work_is_enough_and_one_that_will_is_not_for_good(
    refusals: list[Refusal | None], shared_by_all: Refusal | None
) -> None:
    assert common(refusals) == shared_by_all


@pytest.mark.parametrize("told", [None, "no", 3, []])
def test_what_is_no_refusal_is_none(told: object) -> None:
    assert Refusal.of({REFUSAL: told}) is None
    assert Refusal.of({}) is None


def test_a_process_tells_why_it_takes_no_work() -> None:
    async def scenario() -> None:
        bus = MemoryBus(MemoryBroker(), "test")
        process = Process("vae-1", Settings(), Metrics("test"), bus, service="vae")
        now: list[Refusal | None] = [None]

        async def work(stop: asyncio.Event, ready: Callable[[], None]) -> None:
            ready()
            await stop.wait()
            await leave.wait()

        async def tells(refusal: Refusal | None) -> bool:
            return [one.refusal for one in await services(bus, 0.02)] == [refusal]

        leave = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(
                process.serve(work, statistics=dict, metadata={}, refusal=lambda: now[0])
            )
            await eventually(lambda: tells(None))
            assert len(await ready_pids(bus)) == 1
            now[0] = LASTING
            await eventually(lambda: tells(LASTING))
            assert not await ready_pids(bus)
            now[0] = None
            process.stop.set()
            await eventually(lambda: tells(Refusal("it is leaving")))
            leave.set()

    run(scenario())
