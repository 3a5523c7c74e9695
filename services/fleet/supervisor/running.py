"""A whole fleet: the bus, the services on it, and the sweep of what dead processes left."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.fleet.plan.checks import free_port, refuse_unusable
from services.fleet.plan.processes import (
    FleetOptions,
    crew_of,
    limits_of,
    plan_processes,
)
from services.fleet.supervisor.admitted import Admitted
from services.fleet.supervisor.bus_server import BusServer, bus_server
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.scaling import follow_wanted
from services.fleet.supervisor.supervisor import Supervisor, supervised
from shared.bus.base import Bus
from shared.bus.discovery import ready_pids, services
from shared.bus.nats import connect
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.host.tasks import alongside
from shared.security.keys import ANONYMOUS, Credentials
from shared.tensors.janitor import remove_all_of

START_SECONDS: Final = 600.0
"""How long all services may take to become ready; a large model may have to be fetched first."""
STOP_SECONDS: Final = 10.0
"""How long each service may take to leave by itself."""

Changed = Callable[[Sequence[Child]], None]
"""Called whenever a process of the fleet changes its state."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet that is ready to work."""

    nats: BusServer
    bus: Bus
    children: Sequence[Child]
    http: str
    """`host:port` of the gateway, empty if there is none."""
    start_seconds: float

    @property
    def http_url(self) -> str:
        """Of the gateway, empty if there is none."""
        return f"http{'s' if self.certificate else ''}://{self.http}" if self.http else ""

    @property
    def certificate(self) -> str:
        """File of the one that the gateway shows; empty: none."""
        specs = [child.spec for child in self.children if child.spec.service == "gateway"]
        found = (spec.environment.get("DARKROOM_HTTP_CERT", "") for spec in specs)
        return next((os.path.abspath(path) for path in found if path), "")


@asynccontextmanager
async def running_fleet(
    options: FleetOptions,
    *,
    data: Path,
    logs: Path,
    nats_port: int | None = None,
    changed: Changed = lambda _: None,
) -> AsyncIterator[Fleet]:
    """Start everything; ready when the context is entered, gone when it is left.

    `data`: where the bus keeps its streams. `logs`: where the services' output goes.
    Raises `Misconfigured`: at once for what can be seen to be wrong before the start, with a
    service's own sentence or the end of its log if it cannot be got to work."""
    began = time.monotonic()
    # Said here, what is wrong is not hidden in a service's log.
    await asyncio.to_thread(refuse_unusable, options, nats_port)
    if options.http_port == 0:  # chosen once: a gateway that is started again keeps its address
        options = replace(options, http_port=free_port(options.http_host))
    arenas = Settings.from_env().arena_dir
    running: list[Supervisor] = []
    admitted = await asyncio.to_thread(_admitted, options)
    credentials = Credentials.of_directory(options.keys / "admin") if options.keys else ANONYMOUS
    access = None if admitted is None else admitted.access
    async with bus_server(data, nats_port, access=access) as nats:
        bus = await connect(nats.url, f"fleet-{os.getpid()}", credentials=credentials, synced=True)
        try:
            await bus.ensure(TOPOLOGY)  # not every service may change a stream
            crew = crew_of(options, plan_processes(options, nats.url, os.environ))
            async with (
                nullcontext() if admitted is None else admitted.following(bus, nats),
                supervised(
                    crew,
                    lambda: ready_pids(bus),
                    logs,
                    patience=STOP_SECONDS,
                    verbose=options.verbose,
                    changed=lambda: changed(running[0].children) if running else None,
                ) as supervisor,
            ):
                running.append(supervisor)
                await supervisor.ready(START_SECONDS)
                http = await _gateway(bus)
                scaling = follow_wanted(bus, options.name, supervisor, limits_of(options))
                async with alongside(scaling):
                    yield Fleet(nats, bus, supervisor.children, http, time.monotonic() - began)
        finally:
            await bus.close()
            remove_all_of(arenas, time.time())


def _admitted(options: FleetOptions) -> Admitted | None:
    """Who may use the bus; None: whoever reaches it."""
    if options.keys is None:
        return None
    admitted = Admitted(options.keys, options.models)
    admitted.access()  # what is wrong with the keys is said before anything is started
    return admitted


async def _gateway(bus: Bus) -> str:
    found = [service.http for service in await services(bus, within=0.1) if service.http]
    return found[0] if found else ""
