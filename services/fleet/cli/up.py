"""`darkroom up`: a fleet that runs until it is told to stop, and that other commands find."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from services.fleet.access.keys import GATEWAY
from services.fleet.cli.progress import Display
from services.fleet.cli.status import ANSWER_SECONDS, unusable_lines
from services.fleet.plan.checks import BUS_HOST, free_port
from services.fleet.plan.machine import with_layout
from services.fleet.plan.processes import FleetOptions
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.running import Fleet, running_fleet
from shared.bus.discovery import services
from shared.client import fleet_state
from shared.errors import Misconfigured
from shared.policy.fleet_layout import Layout
from shared.services import NEEDED
from shared.tensors.owners import start_time

NATS_PORT: Final = 4222
"""Where NATS clients look for a server, and where ours is if nobody else is there."""
OTHERWISE: Final = "--replicas denoiser=N and DARKROOM_THREADS choose otherwise"


def data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the bus keeps its streams, so that jobs survive a restart of everything: beside the
    state file if DARKROOM_STATE_DIR names a place, else this user's directory for such things."""
    if given := environ.get("DARKROOM_STATE_DIR"):
        return Path(given) / "nats"
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "darkroom" / "nats"


def choose_nats_port(given: int | None) -> int | None:
    """What `--nats-port` says, or the usual port if nobody listens there; None: any free one."""
    if given is not None:
        return given or None
    try:
        return free_port(BUS_HOST, NATS_PORT)
    except Misconfigured:
        return None


async def up(
    options: FleetOptions, data: Path, nats_port: int | None, console: Console, display: Display
) -> None:
    """Until cancelled. `nats_port`: 0 is a free one; None is the usual one, or a free one where
    that is taken. Raises `Misconfigured` if a fleet runs already, or cannot be started."""
    directory = fleet_state.state_directory()
    fleet_state.refuse_second(directory)
    options, layout = await asyncio.to_thread(with_layout, options)
    logs = directory / "logs"
    bus_port = choose_nats_port(nats_port)
    started: list[Fleet] = []

    def changed(children: Sequence[Child]) -> None:
        if started:
            fleet_state.write(directory, _describe(started[0], options, logs))
        else:
            display.fleet(children)

    try:
        async with running_fleet(
            options, data=data, logs=logs, nats_port=bus_port, changed=changed
        ) as fleet:
            started.append(fleet)
            changed(fleet.children)
            moved = nats_port is None and bus_port is None
            _announce(fleet, options, layout, logs, moved, console)
            for line in unusable_lines(await services(fleet.bus, ANSWER_SECONDS)):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            await asyncio.Event().wait()
    finally:
        fleet_state.clear(directory)


def _describe(fleet: Fleet, options: FleetOptions, logs: Path) -> fleet_state.FleetState:
    members = [
        fleet_state.Member(
            name=child.spec.name,
            pid=child.pid,
            state=child.state,
            restarts=child.restarts,
            why=child.why,
        )
        for child in fleet.children
    ]
    return fleet_state.FleetState(
        pid=os.getpid(),
        started=start_time(os.getpid()) or 0,
        nats_url=fleet.nats.url,
        http=fleet.http,
        http_url=fleet.http_url,
        http_certificate=own_certificate(fleet.certificate, options.keys),
        logs=str(logs),
        models=options.models,
        keys=str(options.keys.resolve()) if options.keys else "",
        members=tuple(members),
    )


def own_certificate(certificate: str, keys: Path | None) -> str:
    """`certificate`, unless it is from the fleet's keys, which bring its authority to clients."""
    of_keys = None if keys is None else (keys / "gateway" / GATEWAY[0]).resolve()
    return "" if certificate and Path(certificate).resolve() == of_keys else certificate


def _announce(
    fleet: Fleet,
    options: FleetOptions,
    layout: Layout,
    logs: Path,
    moved: bool,
    console: Console,
) -> None:
    """`moved`: the bus is not at the usual port, for that was taken."""
    lines = {
        "ready in": f"{fleet.start_seconds:.1f} s",
        "models": ", ".join(options.models),
        "left out": ", ".join(left_out(options)),
        "runs": f"{layout}; {OTHERWISE}",
        "scales": ", ".join(f"{service} up to {most}" for service, most in options.most.items()),
        "HTTP": fleet.http_url or "no gateway",
        "NATS": fleet.nats.url + (f" ({NATS_PORT} is taken)" if moved else ""),
        "logs": str(logs),
    }
    for name, value in lines.items():
        if value:
            console.print(f"{name:<9} {value}", highlight=False, markup=False, soft_wrap=True)
    console.print("Ctrl-C stops it.")


def left_out(options: FleetOptions) -> list[str]:
    """Services that every model needs and this fleet does not run: somebody else has to."""
    return [
        f"{service} (requests wait until one joins this bus)"
        for service in NEEDED
        if options.replicas.get(service) == 0
    ]
