"""Jobs whose model is not loaded: they wait visibly, have it loaded, or are refused by name.
On the fake bus, in virtual time."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.planner.planner import Planner
from shared import subjects
from shared.bus.base import ServiceInfo
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.model_states import HOLDERS
from shared.bus.placement import placement, without
from shared.bus.topology import TOPOLOGY
from shared.client import Darkroom
from shared.config import Settings
from shared.messages import (
    ComponentReport,
    CostReport,
    JobFailed,
    LoadReport,
    NodeProgress,
    decode_event,
    decode_outcome,
    encode,
)
from shared.services import SERVICE_OF
from shared.telemetry.metrics import Metrics
from tests.conftest import eventually
from tests.helpers.factories import catalogue, request
from tests.loadgen.virtual_time import run_virtually

MODEL = catalogue().default.name


@dataclass
class Fleet:
    """A planner, and what each model service says of its component of the model."""

    bus: MemoryBus
    says: dict[str, dict[str, Any]] = field(default_factory=dict)

    def stand(self, state: str, *services: str, **more: Any) -> None:
        for service in services or HOLDERS:
            self.says[service] = {"name": MODEL, "state": state, **more}

    async def report(self) -> None:
        """All of it is loaded, and idle."""
        for kind in ("encode", "denoise", "decode"):
            one = ComponentReport(kind=kind, model=MODEL, cost=CostReport(fixed=0.01))
            said = LoadReport(process=f"{SERVICE_OF[kind]}-1", at=time.time(), components=(one,))
            await self.bus.publish(subjects.load(said.process), encode(said))

    async def submit(self, job_id: str, **fields: Any) -> None:
        wanted = request(job_id=job_id, **fields)
        await self.bus.store(subjects.submit(job_id), encode(wanted))

    async def failure(self, job_id: str) -> str:
        async def ended() -> bool:
            return await self.bus.stored(subjects.result(job_id)) is not None

        await eventually(ended)
        data = await self.bus.stored(subjects.result(job_id))
        assert data is not None
        outcome = decode_outcome(data)
        assert isinstance(outcome, JobFailed)
        return f"{outcome.failure.code}: {outcome.failure.message}"

    async def released(self) -> bool:
        return await self.bus.depth(subjects.WORK, subjects.ALL_WORK) > 0


@asynccontextmanager
async def cold(state: str, **more: Any) -> AsyncIterator[Fleet]:
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    fleet = Fleet(bus)
    fleet.stand(state, **more)
    settings = Settings(ack_wait=1.0, poll_seconds=0.1)
    planner = Planner(bus, catalogue(), settings, Metrics("planner"))

    def told(service: str) -> Mapping[str, object]:
        return {"components": [fleet.says[service]]}

    stop, ready = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watching = [
            group.create_task(_answer(bus, service, lambda service=service: told(service)))
            for service in HOLDERS
        ]
        watching += [
            group.create_task(one())
            for one in (planner.watch_services, planner.watch_wanted, planner.watch_queues)
        ]
        group.create_task(planner.run(stop, ready.set))
        await ready.wait()
        await asyncio.sleep(2.0)  # of virtual time: it has seen who is there
        try:
            yield fleet
        finally:
            stop.set()
            for one in watching:
                one.cancel()


async def _answer(bus: MemoryBus, service: str, told: Any) -> None:
    metadata = {"service": service, "pid": "1", "models": ""}
    name = f"darkroom-{service.replace('_', '-')}"
    info = ServiceInfo(name=name, version="0.1.0", description="", metadata=metadata)
    async with bus.service(info, told):
        await asyncio.Event().wait()


def test_a_job_waits_visibly_until_its_model_is_loaded() -> None:
    async def scenario() -> None:
        async with (
            cold("loading", seconds=4.0) as fleet,
            fleet.bus.subscribe(subjects.event("job-1")) as events,
            Darkroom(fleet.bus) as darkroom,
        ):
            await fleet.submit("job-1")
            message = await anext(aiter(events))
            event = decode_event(message.data)
            assert isinstance(event, NodeProgress)
            assert (event.node, event.state, event.model_state) == ("plan", "started", "loading")
            assert event.loading_seconds is not None
            assert 0 < event.loading_seconds <= 4.0
            stands = await darkroom.waiting("job-1")
            assert (stands.model_state, stands.position) == ("loading", None)
            assert not await fleet.released()
            await fleet.report()  # it is loaded, and the planner hears it before it asks again
            await eventually(fleet.released)

    run_virtually(scenario())


def test_a_job_has_a_model_loaded_that_was_let_go() -> None:
    async def scenario() -> None:
        async with cold("on disk") as fleet:
            for service in HOLDERS:
                await placement(fleet.bus, service).change(without([MODEL, "another"]))
            await fleet.submit("job-1")

            async def wanted() -> bool:
                said = [await placement(fleet.bus, service).read() for service in HOLDERS]
                return all(one is not None and one.away == ("another",) for one in said)

            await eventually(wanted)
            assert not await fleet.released()

    run_virtually(scenario())


def test_a_job_whose_model_cannot_be_loaded_is_refused_with_the_reason() -> None:
    async def scenario() -> None:
        async with cold("loading", seconds=60.0) as fleet:
            await fleet.submit("job-1")
            await asyncio.sleep(3.0)
            fleet.stand("failed", "vae", reason="the file is gone")
            assert await fleet.failure("job-1") == (
                f"not_served: no vae for {MODEL} takes work: vae: the file is gone"
            )

    run_virtually(scenario())


def test_a_job_that_would_be_late_when_its_model_is_loaded_is_refused_at_once() -> None:
    async def scenario() -> None:
        async with cold("loading", seconds=600.0) as fleet:
            await fleet.submit("job-1", deadline=time.time() + 300.0)
            assert (await fleet.failure("job-1")).startswith("deadline_unreachable: ")
            await fleet.submit("job-2")
            await asyncio.sleep(3.0)
            assert await fleet.bus.stored(subjects.result("job-2")) is None

    run_virtually(scenario())


def test_who_is_absent_keeps_no_job_from_its_queue() -> None:
    async def scenario() -> None:
        async with cold("loaded") as fleet:
            await fleet.submit("job-1")
            await eventually(fleet.released)

    run_virtually(scenario())
