"""What every service process is made of: settings, telemetry, the bus, an arena, and a way to stop.

A service's `__main__` hands `run_process` a coroutine, which builds what the service is for and
awaits `Process.serve`.
"""

import asyncio
import gc
import os
import signal
import socket
import time
import uuid
from collections import ChainMap
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Final

import msgspec
import uvloop

from shared.bus.base import ServiceInfo
from shared.bus.discovery import PROCESS, fleet_metadata
from shared.bus.nats import NatsBus, connect
from shared.bus.readiness import REFUSAL, Refusal
from shared.bus.service import PROCESSOR
from shared.bus.topology import TOPOLOGY
from shared.bus.unusable import UNUSABLE, Unusable
from shared.config import Settings
from shared.host.exits import exit_in_words, leave
from shared.host.terminate import terminate
from shared.jobs.releases import keep_released
from shared.messages import ComponentReport
from shared.process.payload import refuse_small_payload
from shared.residency.loader import Loader
from shared.services import bus_name
from shared.telemetry import telemetry
from shared.telemetry.exposition import serve_metrics
from shared.telemetry.metrics import Metrics
from shared.tensors.janitor import keep_swept
from shared.tensors.tcp import serving
from shared.tensors.transport import Transport
from shared.worker.context import Context
from shared.worker.load_publisher import LoadPublisher
from shared.worker.memory_budget import MemoryBudget
from shared.worker.pull import willing

SWEEP_SECONDS: Final = 30.0
"""Pause between two looks for arenas whose owner is gone."""

Statistics = Callable[[], Mapping[str, object]]


@dataclass(slots=True)
class Process(Context):
    """A connected process."""

    service: str = field(kw_only=True)
    loader: Loader = field(default_factory=Loader)
    """The one that moves what is large between tiers."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(
        self,
        run: Callable[[asyncio.Event, Callable[[], None]], Coroutine[None, None, None]],
        *,
        statistics: Statistics,
        metadata: MutableMapping[str, str],
        refusal: Callable[[], Refusal | None] = willing,
        unusable: Callable[[], Sequence[Unusable]] = tuple,
        loads: Sequence[Callable[[], Sequence[ComponentReport]]] = (),
        background: Sequence[Callable[[], Coroutine[None, None, None]]] = (),
    ) -> None:
        """Await `run(stop, ready)`, which calls `ready` once it takes work and ends soon after
        `stop` is set. From `ready` on the process answers to `$SRV`, also why it takes no work if
        `refusal` says so, and what is `unusable` of what it was to serve; `metadata` may change
        meanwhile.
        `loads`: what it tells planners of its components, from `ready` on.
        `background` coroutines run meanwhile, and are cancelled at the end."""

        def current_statistics() -> Mapping[str, object]:
            current = Refusal("it is leaving") if self.stop.is_set() else refusal()
            return {
                **statistics(),
                REFUSAL: current and asdict(current),
                UNUSABLE: msgspec.to_builtins(unusable()),
                PROCESSOR: round(time.process_time(), 3),
            }

        info = ServiceInfo(
            name=bus_name(self.service),
            version=version("darkroom"),
            description=f"Darkroom {self.service}",
            metadata=ChainMap(
                metadata,
                {
                    "service": self.service,
                    PROCESS: self.name,
                    "pid": str(os.getpid()),
                    "host": socket.gethostname(),
                    **fleet_metadata(self.settings),
                },
            ),
        )
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(coroutine()) for coroutine in background]
            helpers.append(group.create_task(serve_metrics(self.bus, self.metrics, self.name)))
            working = group.create_task(run(self.stop, ready.set))
            await ready.wait()
            # What was loaded stays until the end: no collector need look at it again, least of all
            # when the interpreter leaves, which took a process with torch 40 s.
            gc.collect()
            gc.freeze()
            gc.enable()  # see `start_up.py`
            helpers.append(group.create_task(self._announce(info, current_statistics)))
            if loads:
                publisher = LoadPublisher(self.bus, self.name, loads, self.stop)
                helpers.append(group.create_task(publisher.run()))
            await working
            for helper in helpers:
                helper.cancel()

    async def _announce(self, info: ServiceInfo, statistics: Statistics) -> None:
        async with self.bus.service(info, statistics):
            await asyncio.Event().wait()


def run_process(service: str, main: Callable[[Process], Coroutine[None, None, None]]) -> None:
    """The whole life of a process: settings, telemetry, event loop, bus, then `main`. It does not
    return: where all that was opened is closed, the process ends at once, and the interpreter does
    not go through everything that was imported to take it apart."""
    with exit_in_words():
        settings = Settings.from_env()
        with telemetry(service) as metrics:
            uvloop.run(_connected(service, settings, metrics, main))
    leave()


async def _connected(
    service: str,
    settings: Settings,
    metrics: Metrics,
    main: Callable[[Process], Coroutine[None, None, None]],
) -> None:
    """Connect, make sure the streams exist, run `main`; SIGTERM and SIGINT set `stop`."""
    name = f"{service}-{uuid.uuid4().hex[:8]}"
    bus = await connect(settings.nats_url, name, replicas=settings.replicas)
    watch = asyncio.create_task(_leave_without(bus))
    loader = Loader(settings.load_bytes_per_second)
    metrics.watch_loader(loader.reading)
    try:
        refuse_small_payload(bus.max_payload)
        await bus.ensure(TOPOLOGY)
        budget = MemoryBudget(settings.memory_budget, metrics.refused)
        running = Process(name, settings, metrics, bus, budget, service=service, loader=loader)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.stop.set)
        await main(running)
    finally:
        watch.cancel()
        await asyncio.to_thread(loader.close)
        await bus.close()


async def _leave_without(bus: NatsBus) -> None:
    """A connection that is lost comes back; one that the server closed for good does not."""
    terminate(await bus.closed())


@asynccontextmanager
async def arena(running: Process) -> AsyncIterator[Transport]:
    """This process's arena, whose slots are freed as jobs end and leases expire. Meanwhile the
    arenas of owners that died are removed."""
    settings = running.settings
    transport = Transport.create(settings.arena_dir, settings.arena_bytes, running.service)
    try:
        running.metrics.watch_arena(
            transport.name,
            lambda: transport.arena.statistics().in_use,
            settings.arena_bytes,
        )
        async with asyncio.TaskGroup() as group:
            keepers = (
                group.create_task(
                    keep_released(running.bus, transport, audit_every=settings.audit_seconds)
                ),
                group.create_task(
                    keep_swept(
                        settings.arena_dir,
                        min(SWEEP_SECONDS, settings.arena_grace_seconds / 4),
                        grace_seconds=settings.arena_grace_seconds,
                    )
                ),
            )
            async with _reachable(transport, settings) as reachable:
                yield reachable
            for keeper in keepers:
                keeper.cancel()
    finally:
        transport.leave()


@asynccontextmanager
async def _reachable(local: Transport, settings: Settings) -> AsyncIterator[Transport]:
    """`local`, also from other hosts if the settings say where."""
    if not settings.tensor_host:
        yield local
        return
    async with serving(local.reader, settings.tensor_host, settings.tensor_port) as address:
        yield local.served_at(address)
