"""Components of a process come and go while it runs. On the fake bus, with held loads."""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared import subjects
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.placement import placement, within, without
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.errors import BusUnavailable, MemoryBudgetExceeded, Misconfigured
from shared.messages.components import ComponentState, Placement, State
from shared.process.component_memory import ComponentHost
from shared.process.components import Components
from shared.residency.loader import Loader
from shared.telemetry.metrics import Metrics
from shared.worker.context import Context
from shared.worker.memory_budget import MemoryBudget
from tests.conftest import eventually, run
from tests.shared.residency.loading import Gate

SIZE = 1000
"""Bytes of each component's weights."""


class World:
    """A process that serves the models `names`, each with a file of weights."""

    def __init__(self, tmp_path: Path, *names: str) -> None:
        self.sources = {name: str(tmp_path / name) for name in names}
        for source in self.sources.values():
            Path(source, "net").mkdir(parents=True)
            Path(source, "net", "model.safetensors").write_bytes(b"x" * SIZE)
            Path(source, "net", "config.json").write_text("{}")
        self.held: list[str] = []
        """By the handlers."""
        self.loads: list[str] = []
        self.niceness: list[int] = []
        """Of the threads of these loads."""
        self.broken: dict[str, Exception] = {}
        """What loading these raises."""
        self.gate = threading.Event()
        """Loads wait for it."""
        self.gate.set()
        self.draining = asyncio.Event()
        """Until it is set, what is in hand is not done."""
        self.draining.set()
        self.worker = Worker(self)
        self.budget = 0
        self.memory = MemoryBudget(0)
        self.loader = Loader()

    def load(self, name: str) -> str:
        self.loads.append(name)
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        assert self.gate.wait(60)
        if name in self.broken:
            raise self.broken[name]
        return f"network of {name}"

    @asynccontextmanager
    async def serving(self, name: str, loaded: str) -> AsyncIterator[None]:
        assert loaded == f"network of {name}"
        self.held.append(name)
        try:
            yield
        finally:
            self.held.remove(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Components[str], MemoryBus]]:
        bus = MemoryBroker().connect("test")
        await bus.ensure(TOPOLOGY)
        context = Context("vae-1", Settings(), Metrics("vae"), bus, self.memory)
        host = ComponentHost(
            what="the vae",
            sources=lambda: dict(self.sources),
            folders=lambda name: ("net",),
            load=self.load,
            serving=self.serving,
        )
        components = Components(context, "vae", host, self.loader, self.budget or None)
        try:
            async with components.running([self.worker]):  # type: ignore[list-item]  # as one
                yield components, bus
        finally:
            await asyncio.to_thread(self.loader.close)

    async def hold_load(self, components: Components[str], bus: MemoryBus, name: str) -> None:
        """Take the component out, and in again, until its load waits for the gate."""
        await place(bus, without([name]))
        await until(components, name, "on disk")
        self.gate.clear()
        await place(bus, within([name]))
        await until(components, name, "loading")


class Worker:
    """Notes what it pulls."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pulled: list[str] = []
        self.trouble: Exception | None = None

    async def add(self, model: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        assert model in self.world.held
        self.pulled.append(model)

    async def remove(self, model: str) -> None:
        if model in self.pulled:
            self.pulled.remove(model)
        await self.world.draining.wait()
        assert model in self.world.held


def of(components: Components[str], name: str) -> ComponentState:
    [found] = [one for one in components.states() if one.name == name]
    return found


async def until(components: Components[str], name: str, state: State) -> ComponentState:
    async def stands() -> bool:
        return of(components, name).state == state

    await eventually(stands)
    return of(components, name)


async def place(bus: MemoryBus, change: Callable[[Placement | None], Placement]) -> None:
    await placement(bus, "vae").change(change)


def test_what_is_configured_is_held_from_the_start(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, _):
            assert world.held == world.worker.pulled == ["a", "b"]
            assert components.metadata["models"] == "a b"
            assert int(components.metadata["budget"]) > 0
            assert [one.state for one in components.states()] == ["loaded", "loaded"]
            assert of(components, "a").bytes == SIZE
            assert components.unusable() == []
        assert world.held == []

    run(main())


def test_one_that_is_let_go_is_drained_and_comes_back(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, bus):
            world.draining.clear()
            await place(bus, without(["a"]))
            await until(components, "a", "draining")
            assert world.worker.pulled == ["b"]
            assert world.held == ["a", "b"]  # its nodes are not done
            assert components.metadata["models"] == "b"
            world.draining.set()
            await until(components, "a", "on disk")
            assert world.held == ["b"]
            await place(bus, within(["a"]))
            await until(components, "a", "loaded")
            assert world.worker.pulled == ["b", "a"]
            assert components.metadata["models"] == "a b"

    run(main())


def test_one_that_is_wanted_again_while_it_drains_is_loaded_again(tmp_path: Path) -> None:
    world = World(tmp_path, "a")

    async def main() -> None:
        async with world.running() as (components, bus):
            world.draining.clear()
            await place(bus, without(["a"]))
            await until(components, "a", "draining")
            await place(bus, within(["a"]))
            world.draining.set()
            await until(components, "a", "loaded")
            assert world.loads == ["a", "a"]

    run(main())


def test_a_load_holds_up_nothing_else_and_says_how_long_it_takes(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, bus):
            await place(bus, without(["b"]))
            assert (await until(components, "b", "on disk")).seconds is not None
            world.gate.clear()
            await place(bus, within(["b"]))
            loading = await until(components, "b", "loading")
            assert loading.seconds is not None
            await place(bus, without(["a"]))
            await until(components, "a", "on disk")  # while the other one loads
            world.gate.set()
            await until(components, "b", "loaded")

    run(main())


def test_one_that_is_not_wanted_any_more_when_it_is_loaded_is_never_served(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, bus):
            await world.hold_load(components, bus, "b")
            await place(bus, without(["b"]))
            world.gate.set()
            await until(components, "b", "on disk")
            assert world.held == ["a"]

    run(main())


def test_a_process_leaves_while_it_loads(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, bus):
            await world.hold_load(components, bus, "b")
        assert world.held == []
        world.gate.set()

    run(main())


def test_a_load_that_fails_leaves_the_others_and_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")
    world.broken["a"] = OSError("the file is gone")

    async def main() -> None:
        async with world.running() as (components, _):
            failed = of(components, "a")
            assert failed.state in ("failed", "loading")
            assert "the vae of a cannot be loaded" in failed.reason
            assert "the file is gone" in failed.reason
            [unusable] = components.unusable()
            assert (unusable.name, unusable.kind, unusable.reason) == ("a", "model", failed.reason)
            assert world.worker.pulled == ["b"]
            world.broken.clear()
            await until(components, "a", "loaded")
            assert components.unusable() == []

    run(main())


def test_a_process_that_can_load_nothing_does_not_start(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")
    world.broken = {name: Misconfigured(f"{name} is corrupt") for name in ("a", "b")}

    async def main() -> None:
        with pytest.raises(Misconfigured, match="a is corrupt; b is corrupt"):
            async with world.running():
                pass

    run(main())


def test_a_component_whose_queue_cannot_be_had_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, bus):
            await place(bus, without(["b"]))
            await until(components, "b", "on disk")
            world.worker.trouble = BusUnavailable("WORK", "no answer")
            await place(bus, within(["b"]))
            assert "no answer" in (await until(components, "b", "failed")).reason
            assert world.held == ["a"]
            world.worker.trouble = None
            await until(components, "b", "loaded")

    run(main())


def test_what_does_not_fit_waits_until_another_one_leaves(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")
    world.budget = SIZE + SIZE // 2

    async def main() -> None:
        async with world.running() as (components, bus):
            blocked = of(components, "b")
            assert blocked.state == "on disk"
            assert "wait for room in the 1500 of DARKROOM_MEMORY beside a (1000)" in blocked.reason
            assert components.unusable() == []
            await place(bus, without(["a"]))
            await until(components, "b", "loaded")
            assert of(components, "b").reason == ""

    run(main())


def test_all_of_them_over_the_memory_budget_are_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, "a", "b")
    world.memory = MemoryBudget(2 * SIZE - 1, resident=lambda: 0)

    async def main() -> None:
        with pytest.raises(MemoryBudgetExceeded, match="the vae of a, b"):
            async with world.running():
                pass

    run(main())
    assert world.loads == []


def test_what_is_said_of_a_process_goes_before_what_is_said_of_its_service(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b", "c")

    async def main() -> None:
        async with world.running() as (components, bus):
            await placement(bus, "vae-1").change(lambda _: Placement(held=("c", "b")))
            await until(components, "a", "on disk")
            await placement(bus, "vae-2").change(lambda _: Placement(held=()))
            await place(bus, without(["b"]))
            await until(components, "b", "on disk")
            assert components.metadata["models"] == "c"

    run(main())


def test_a_model_that_is_another_one_now_is_loaded_anew(tmp_path: Path) -> None:
    world = World(tmp_path, "a")
    other = World(tmp_path / "other", "a")

    async def main() -> None:
        async with world.running() as (components, bus):
            world.sources = dict(other.sources)
            await bus.publish(subjects.PLACED, b"")

            async def loaded() -> bool:
                return world.loads == ["a", "a"] and of(components, "a").state == "loaded"

            await eventually(loaded)

    run(main())


def test_the_loader_brings_components_in_its_order_and_within_its_bound(tmp_path: Path) -> None:
    world = World(tmp_path, "a", "b")

    async def main() -> None:
        async with world.running() as (components, bus):
            found = world.loader.reading()
            [tier] = found.tiers
            assert (tier.items, tier.bytes, tier.loads) == (2, 2 * SIZE, 2)
            assert found.moved == tier.moved == 2 * SIZE
            await place(bus, without(["b"]))
            await until(components, "b", "on disk")
            gate = Gate()
            world.loader.bring(gate.item)
            await asyncio.to_thread(gate.reached)
            await place(bus, within(["b"]))
            await until(components, "b", "loading")
            assert world.loader.waiting() == ["gate", "b"]
            assert world.loads == ["a", "b"]  # it waits for its turn
            gate.open()
            await until(components, "b", "loaded")
            assert world.loader.reading().tiers[0].items == 2

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_only_a_load_that_jobs_wait_for_is_urgent(tmp_path: Path) -> None:
    world = World(tmp_path, "a")

    async def main() -> None:
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        async with world.running() as (components, bus):
            for awaited in (False, True):
                await place(bus, without(["a"]))
                await until(components, "a", "on disk")
                await place(bus, within(["a"], awaited=awaited))
                await until(components, "a", "loaded")
        at_start, patient, urgent = world.niceness
        assert at_start == urgent == usual
        assert patient > usual

    run(main())


def test_what_is_let_go_is_freed(tmp_path: Path) -> None:
    world = World(tmp_path, "a")

    class Network:
        pass

    networks = [Network()]
    freed = weakref.ref(networks[0])

    @asynccontextmanager
    async def serving(name: str, loaded: object) -> AsyncIterator[None]:
        world.held.append(name)
        yield
        world.held.remove(name)

    world.load = lambda name: networks.pop()  # type: ignore[method-assign, assignment, return-value]
    world.serving = serving  # type: ignore[method-assign]

    async def main() -> None:
        async with world.running() as (components, bus):
            assert freed() is not None
            await place(bus, without(["a"]))
            await until(components, "a", "on disk")
            assert freed() is None
            assert world.loader.reading().tiers[0].bytes == 0

    run(main())


def test_how_components_stand_is_in_the_metrics(tmp_path: Path) -> None:
    world = World(tmp_path, "a")

    async def main() -> None:
        async with world.running() as (components, _):
            text = components._context.metrics.render().decode()
            assert 'darkroom_component_bytes{model="a",service="vae",state="loaded"} 1000.0' in text

    run(main())
