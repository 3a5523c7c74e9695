"""What is read of a Darkroom while it is under load."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadgen.outcomes.occupancy import (
    HttpSource,
    NatsSource,
    Reading,
    Source,
    Steps,
    from_metrics,
    from_stats,
    keep_sampling,
    rows_per_step,
)
from loadgen.outcomes.outcome import Sample
from shared.bus.base import Message, ServiceInfo
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import BusUnavailable
from shared.telemetry.exposition import merge
from shared.telemetry.metrics import Metrics
from tests.conftest import run

FIRST, SECOND = ("a", "m"), ("b", "m")


def info(name: str) -> ServiceInfo:
    return ServiceInfo(name=name, version="0.1.0", description="")


def engine(steps: int, row_steps: int, in_flight: int = 0) -> Mapping[str, object]:
    return {"in_flight": in_flight, "engines": {"m": {"steps": steps, "row_steps": row_steps}}}


def test_rows_per_step_are_those_of_the_steps_in_between() -> None:
    past = {FIRST: Steps(10, 80), SECOND: Steps(0, 0)}
    assert rows_per_step(past, {FIRST: Steps(14, 100), SECOND: Steps(1, 1)}) == 21 / 5
    assert rows_per_step(past, past) is None


def test_a_process_that_was_not_there_before_is_not_counted() -> None:
    assert rows_per_step({}, {FIRST: Steps(1000, 8000)}) is None
    now = {FIRST: Steps(1000, 8000), SECOND: Steps(2, 4)}
    assert rows_per_step({SECOND: Steps(1, 1)}, now) == 3.0


class Script:
    """A source of prepared readings, which says when they are used up."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = list(readings)
        self.over = asyncio.Event()

    async def read(self) -> Reading:
        if len(self._readings) == 1:
            self.over.set()
        return self._readings.pop(0) if self._readings else Reading()


def sampled(readings: Sequence[Reading]) -> list[Sample]:
    """The samples of `readings`."""

    async def scenario() -> list[Sample]:
        source: Source = Script(readings)
        samples: list[Sample] = []
        sampling = asyncio.create_task(keep_sampling(source, lambda: 3, samples.append, 0.001))
        assert isinstance(source, Script)
        await source.over.wait()
        sampling.cancel()
        await asyncio.wait([sampling])
        return samples[: len(readings)]

    return run(scenario())


def test_a_process_that_misses_an_answer_is_counted_from_its_last_one() -> None:
    readings = [Reading(0, {FIRST: Steps(steps, 2 * steps)}) for steps in (5, 8, 20)]
    found = sampled([readings[0], Reading(4, {}), readings[1], readings[2]])
    assert [one.rows_per_step for one in found] == [None, None, 2.0, 2.0]
    assert [one.queue_depth for one in found] == [0, 4, 0, 0]
    assert [one.at for one in found] == sorted(one.at for one in found)


def test_without_a_source_only_what_is_in_flight_is_known() -> None:
    async def scenario() -> Sample:
        taken: asyncio.Queue[Sample] = asyncio.Queue()
        sampling = asyncio.create_task(keep_sampling(None, lambda: 3, taken.put_nowait))
        first = await taken.get()
        sampling.cancel()
        await asyncio.wait([sampling])
        return first

    found = run(scenario())
    assert (found.queue_depth, found.in_flight, found.rows_per_step) == (None, 3, None)


def test_a_fleet_is_read_over_the_bus() -> None:
    async def scenario() -> tuple[Reading, list[str]]:
        bus = MemoryBus(MemoryBroker(), "test")
        await bus.ensure(TOPOLOGY)
        await bus.store("dr.v1.submit.job", b"")
        for number in range(4):
            await bus.store(f"dr.v1.work.denoise.m.batch.job.n{number}@1", b"")
        async with (
            bus.service(info("darkroom-denoiser"), lambda: engine(10, 35, in_flight=3)) as one,
            bus.service(info("darkroom-denoiser"), lambda: engine(2, 2)) as two,
            bus.service(info("darkroom-gateway"), lambda: {"waiting": 9}),
            bus.service(info("somebody-else"), lambda: engine(1, 1, in_flight=1)),
        ):
            return await NatsSource(bus).read(), [one, two]

    reading, (one, two) = run(scenario())
    assert reading.queue_depth == 1 + 4 - 3
    assert reading.steps == {(one, "m"): Steps(10, 35), (two, "m"): Steps(2, 2)}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"name": 1}', b'{"name": "darkroom-x"}'])
def test_answers_that_make_no_sense_are_ignored(data: bytes) -> None:
    assert from_stats([Message("reply", data, {})], 2) == Reading(2, {})


def test_more_nodes_in_work_than_in_the_queue_is_an_empty_queue() -> None:
    said = {"name": "darkroom-vae", "id": "x", "endpoints": [{"data": {"in_flight": 3}}]}
    assert from_stats([Message("reply", json.dumps(said).encode(), {})], 1).queue_depth == 0


def test_a_bus_that_is_away_is_an_empty_reading() -> None:
    class Away(MemoryBus):
        async def gather(self, *_: Any) -> Sequence[Message]:
            raise BusUnavailable("$SRV.STATS", "away")

    assert run(NatsSource(Away(MemoryBroker(), "test")).read()) == Reading()


def fleet_metrics() -> str:
    """Two planners that see five nodes in a queue, two of which a denoiser works on."""
    denoiser, planner = Metrics("denoiser"), Metrics("planner")
    for rows in (2, 4, 3):
        denoiser.step("m", rows, 0.1)
    for _ in range(3):
        denoiser.stage_waiting("denoise", "m", 0.1)
    denoiser.stage_running("denoise", "m", 1.0)
    planner.queue_depth("denoise", "m", 5)
    planner.stage_running("plan", "m", 0.1)
    texts = [denoiser.render(instance="d"), *(planner.render(instance=i) for i in ("p", "q"))]
    return merge(texts).decode()


def test_a_fleet_is_read_from_its_metrics() -> None:
    assert from_metrics(fleet_metrics()) == Reading(3, {("d", "m"): Steps(3, 9)})


@pytest.mark.parametrize("text", ["", "# nothing", "up 1\n", "{", 'a{b="c} 1'])
def test_other_metrics_tell_nothing(text: str) -> None:
    assert from_metrics(text) == Reading()


def read_twice(status: int, text: str) -> tuple[Reading, Reading, int]:
    """Two readings of a server that answers so, and how often it was asked."""
    asked = 0

    async def metrics(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=status, text=text)

    async def scenario() -> tuple[Reading, Reading]:
        app = web.Application()
        app.router.add_get("/metrics", metrics)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            source = HttpSource(session, f"http://127.0.0.1:{server.port}/")
            return await source.read(), await source.read()

    return (*run(scenario()), asked)


def test_a_gateway_is_asked_each_time() -> None:
    first, second, asked = read_twice(200, fleet_metrics())
    assert first == second == Reading(3, {("d", "m"): Steps(3, 9)})
    assert asked == 2


@pytest.mark.parametrize(("status", "text"), [(404, "no"), (200, "vllm_requests 1\n")])
def test_a_server_of_another_kind_is_asked_once(status: int, text: str) -> None:
    assert read_twice(status, text) == (Reading(), Reading(), 1)


def test_a_gateway_in_trouble_is_asked_again() -> None:
    assert read_twice(503, "busy") == (Reading(), Reading(), 2)


def test_a_server_that_is_not_there_tells_nothing() -> None:
    async def scenario() -> Reading:
        server = TestServer(web.Application())
        await server.start_server()
        url = f"http://127.0.0.1:{server.port}"
        await server.close()
        async with aiohttp.ClientSession() as session:
            return await HttpSource(session, url).read()

    assert run(scenario()) == Reading()
