"""A job is refused where those that it needs say that they take no work, for good."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from services.planner import serving as module
from services.planner.serving import Serving, unserved
from shared import subjects
from shared.bus.base import ServiceInfo
from shared.bus.discovery import COMPONENTS, Service
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.readiness import Refusal
from shared.bus.unusable import Unusable
from shared.errors import NotServed
from shared.jobs.graph import workflow
from shared.messages.components import ComponentState
from shared.services import SERVICE_OF
from tests.conftest import eventually, run
from tests.helpers.factories import catalogue, spec

GRAPH = workflow(spec())
LASTING, PASSING = Refusal("no memory", lasting=True), Refusal("it is leaving")


def process(service: str, refusal: Refusal | None, model: str = "pocket-sdxl") -> Service:
    return Service(service, 1, "i", "0.1.0", (model,), "", "here", refusal)


@pytest.mark.parametrize("service", ["prompt_encoder", "denoiser", "vae"])
def test_a_service_that_takes_none_for_good_is_named_with_the_reason(service: str) -> None:
    refusal = unserved(GRAPH, [process(service, LASTING), process(service, LASTING)])
    assert refusal is not None
    assert refusal.message == f"no {service} for pocket-sdxl takes work: no memory"


@pytest.mark.parametrize(
    "found",
    [
        [],
        [process("denoiser", None)],
        [process("denoiser", PASSING)],
        [process("denoiser", LASTING), process("denoiser", None)],
        [process("denoiser", LASTING), process("denoiser", PASSING)],
        [process("denoiser", LASTING, model="another")],
        [process("controlnet", LASTING)],
    ],
)
def test_a_job_waits_for_who_is_absent_leaving_or_of_no_use_to_it(found: list[Service]) -> None:
    assert unserved(GRAPH, found) is None


def test_a_model_that_nobody_could_load_is_refused_with_the_reason_and_others_are_not() -> None:
    broken = Unusable(name="pocket-sdxl", source="x", kind="model", reason="no numbers")
    loaded = process("vae", None, model="another")
    other = msgspec.structs.replace(spec(), model="another")
    broken_one = dataclasses.replace(loaded, unusable=(broken,))
    refusal = unserved(GRAPH, [broken_one])
    assert refusal is not None
    assert refusal.message == "no vae for pocket-sdxl takes work: no numbers"
    assert unserved(workflow(other), [broken_one]) is None
    assert unserved(GRAPH, [broken_one, process("vae", None)]) is None  # another replica has it


def test_every_kind_of_node_has_its_service() -> None:
    assert {node.kind for node in GRAPH.values()} < set(SERVICE_OF)


@asynccontextmanager
async def denoiser(bus: MemoryBus, told: dict[str, object]) -> AsyncIterator[None]:
    metadata = {"service": "denoiser", "pid": "7", "models": "pocket-sdxl"}
    info = ServiceInfo(name="darkroom-denoiser", version="0.1.0", description="", metadata=metadata)
    async with bus.service(info, lambda: told):
        yield


async def refused(serving: Serving) -> bool:
    try:
        await serving.refuse_unserved(GRAPH)
    except NotServed:
        return True
    return False


def test_a_job_is_turned_away_for_what_holds_now() -> None:
    async def scenario() -> None:
        bus = MemoryBus(MemoryBroker(), "test")
        told: dict[str, object] = {"refusal": {"reason": "no memory", "lasting": True}}
        serving = Serving(bus, catalogue())
        async with denoiser(bus, told), asyncio.TaskGroup() as group:
            watching = group.create_task(serving.watch())
            await eventually(lambda: refused(serving))
            watching.cancel()
            told["refusal"] = None
            assert not await refused(serving)

    run(scenario())


def test_what_shall_be_held_is_looked_at_as_soon_as_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 1000.0)
    state = ComponentState(name="pocket-sdxl", state="loaded")

    async def main() -> None:
        bus = MemoryBroker().connect("test")
        told: dict[str, object] = {COMPONENTS: msgspec.to_builtins([state])}
        serving = Serving(bus, catalogue())

        async def stands() -> bool:
            found = serving.waited_for("pocket-sdxl")
            return found is not None and found.state == "on disk"

        async with denoiser(bus, told), asyncio.TaskGroup() as group:
            watching = group.create_task(serving.watch())
            await asyncio.sleep(0)
            assert not await stands()
            away = msgspec.structs.replace(state, state="on disk")
            told[COMPONENTS] = msgspec.to_builtins([away])
            await bus.publish(subjects.PLACED, b"")
            await eventually(stands)
            watching.cancel()

    run(main())
