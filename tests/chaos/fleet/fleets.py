"""Fleets to be harmed: the real services, or stand-ins for those that need torch, on a bus of their
own, in directories of their own, supervised as `darkroom up` does it.
"""

import os
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.fleet.plan.checks import free_port
from services.fleet.plan.processes import Crew, FleetOptions, ProcessSpec, plan_processes
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.supervisor import supervised
from shared.bus.base import Bus
from shared.bus.discovery import ready_pids
from shared.bus.nats import connect
from shared.config import Settings
from shared.policy.restarts import RestartPolicy
from tests.chaos.fleet.brokers import Broker, single_broker
from tests.conftest import HANG_SECONDS

ROOT: Final = Path(__file__).parents[3]
INJECT: Final = ROOT / "tests" / "chaos" / "inject"
"""Holds the `sitecustomize.py` that the services of a chaos fleet start with."""
INJECTING: Final = {"PYTHONPATH": os.pathsep.join([str(INJECT), str(ROOT)])}
"""In the environment of processes, it makes them do what `injection.py` reads there."""

TORCH: Final = ("prompt_encoder", "denoiser", "vae")
SERVICES: Final = ("gateway", "planner", *TORCH)

LEASE: Final = 2.0
START_SECONDS: Final = HANG_SECONDS
POLICY: Final = RestartPolicy(first=0.05, longest=0.3)
"""A fleet under fire restarts at once: how long it waits is not what is examined here."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What fleet a case needs. `injected`: variables that `inject/sitecustomize.py` obeys."""

    stand_ins: bool
    replicas: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(SERVICES, 2) | {"gateway": 1}
    )
    lease: float = LEASE
    """Seconds without a sign of life after which work is given to somebody else."""
    injected: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def grace(self) -> float:
        """Seconds for which the arena of a dead process stays readable: rows have to be resumed
        from it, and files that are left have to be found soon."""
        return 2 * self.lease


@dataclass(frozen=True, slots=True)
class ChaosFleet:
    """`bus` is the harness's own connection."""

    bus: Bus
    broker: Broker
    children: Sequence[Child]
    arenas: Path
    logs: Path
    mark: str
    """Value of `DARKROOM_CHAOS` in the environment of every process of this fleet."""
    plan: FleetPlan

    def ready(self, *services: str) -> list[Child]:
        """Processes that take work now, of these services or of any."""
        return [
            child
            for child in self.children
            if child.state == "ready" and (not services or child.spec.service in services)
        ]

    def victim(self, chance: random.Random, *services: str) -> Child | None:
        """A ready process; a service is chosen first, so that each gets its share."""
        ready = self.ready(*services)
        if not ready:
            return None
        service = chance.choice(sorted({child.spec.service for child in ready}))
        return chance.choice([child for child in ready if child.spec.service == service])

    def restarts(self) -> int:
        return sum(child.restarts for child in self.children)


def send(child: Child, number: signal.Signals) -> int:
    """Its pid. The process must be there."""
    assert child.pid is not None
    os.kill(child.pid, number)
    return child.pid


@asynccontextmanager
async def chaos_fleet(
    plan: FleetPlan,
    broker_in: Callable[[Path], AbstractAsyncContextManager[Broker]] = single_broker,
) -> AsyncIterator[ChaosFleet]:
    """A fleet that is ready; nothing of it may be left when the context is left."""
    with directories() as (here, arenas):
        async with (
            broker_in(here / "nats") as broker,
            on_broker(plan, broker, here, arenas) as up,
        ):
            yield up


@asynccontextmanager
async def on_broker(
    plan: FleetPlan, broker: Broker, here: Path, arenas: Path
) -> AsyncIterator[ChaosFleet]:
    mark = here.name
    bus = await connect(broker.url, "chaos", replicas=broker.replicas)
    try:
        async with supervised(
            Crew(_specs(plan, broker, arenas, mark)),
            lambda: ready_pids(bus),
            here / "logs",
            policy=POLICY,
        ) as supervisor:
            await supervisor.ready(START_SECONDS)
            yield ChaosFleet(bus, broker, supervisor.children, arenas, here / "logs", mark, plan)
    finally:
        await bus.close()


def _specs(plan: FleetPlan, broker: Broker, arenas: Path, mark: str) -> Sequence[ProcessSpec]:
    inherited = {
        **os.environ,
        **INJECTING,
        "DARKROOM_CHAOS": mark,
        "DARKROOM_CONTROLS": "",
        "DARKROOM_ARENA_DIR": str(arenas),
        "DARKROOM_ARENA_BYTES": str(32 << 20),
        "DARKROOM_ARENA_GRACE_SECONDS": str(plan.grace),
        "DARKROOM_AUDIT_SECONDS": "2",
        "DARKROOM_ACK_WAIT": str(plan.lease),
        "DARKROOM_POLL_SECONDS": "0.5",
        "DARKROOM_CHECKPOINT_EVERY": "2",
        "DARKROOM_CHECKPOINT_SECONDS": "0",
        "DARKROOM_THREADS": "1",
        "DARKROOM_REPLICAS": str(broker.replicas),
        "DARKROOM_NATS_SYNC": "always",
        **plan.injected,
        **plan.settings,
    }
    options = FleetOptions(replicas=plan.replicas, http_port=free_port("127.0.0.1"))
    specs = plan_processes(options, broker.url, inherited)
    return [_stand_in(spec) if plan.stand_ins and spec.service in TORCH else spec for spec in specs]


def _stand_in(spec: ProcessSpec) -> ProcessSpec:
    python = spec.command[0]
    return replace(spec, command=(python, "-m", "tests.chaos.stand_ins", spec.service))


@contextmanager
def directories() -> Iterator[tuple[Path, Path]]:
    """One for the bus and the logs, and one on shared memory for the arenas."""
    memory = Settings().arena_dir.parent
    with (
        tempfile.TemporaryDirectory(prefix="darkroom-chaos-") as here,
        tempfile.TemporaryDirectory(prefix="darkroom-chaos-", dir=memory) as arenas,
    ):
        yield Path(here), Path(arenas)
