"""`darkroom up`: a fleet that runs until it is told to stop, and that other commands find."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from services.fleet import state
from services.fleet.child import Child
from services.fleet.layout import Layout
from services.fleet.machine import with_layout
from services.fleet.plan import FleetOptions
from services.fleet.progress import Display
from services.fleet.running import Fleet, running_fleet
from shared.tensors.owners import start_time

OTHERWISE: Final = "--replicas denoiser=N and DARKROOM_THREADS choose otherwise"


def data_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the bus keeps its streams, so that jobs survive a restart of everything: beside the
    state file if DARKROOM_STATE_DIR names a place, else this user's directory for such things."""
    if given := environ.get("DARKROOM_STATE_DIR"):
        return Path(given) / "nats"
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "darkroom" / "nats"


async def up(
    options: FleetOptions, data: Path, nats_port: int | None, console: Console, display: Display
) -> None:
    """Until cancelled. Raises `Misconfigured` if a fleet runs already, or cannot be started."""
    directory = state.state_directory()
    state.refuse_second(directory)
    options, layout = await asyncio.to_thread(with_layout, options)
    logs = directory / "logs"
    started: list[Fleet] = []

    def changed(children: Sequence[Child]) -> None:
        if started:
            state.write(directory, _describe(started[0], options, logs))
        else:
            display.fleet(children)

    try:
        async with running_fleet(
            options, data=data, logs=logs, nats_port=nats_port, changed=changed
        ) as fleet:
            started.append(fleet)
            changed(fleet.children)
            _announce(fleet, options, layout, logs, console)
            await asyncio.Event().wait()
    finally:
        state.clear(directory)


def _describe(fleet: Fleet, options: FleetOptions, logs: Path) -> state.FleetState:
    members = [
        state.Member(
            name=child.spec.name,
            pid=child.pid,
            state=child.state,
            restarts=child.restarts,
            why=child.why,
        )
        for child in fleet.children
    ]
    return state.FleetState(
        pid=os.getpid(),
        started=start_time(os.getpid()) or 0,
        nats_url=fleet.nats.url,
        http=fleet.http,
        http_url=fleet.http_url,
        logs=str(logs),
        models=options.models,
        keys=str(options.keys.resolve()) if options.keys else "",
        members=tuple(members),
    )


def _announce(
    fleet: Fleet, options: FleetOptions, layout: Layout, logs: Path, console: Console
) -> None:
    lines = {
        "ready in": f"{fleet.start_seconds:.1f} s",
        "models": ", ".join(options.models),
        "runs": f"{layout}; {OTHERWISE}",
        "HTTP": fleet.http_url or "no gateway",
        "NATS": fleet.nats.url,
        "logs": str(logs),
    }
    for name, value in lines.items():
        console.print(f"{name:<9} {value}", highlight=False, markup=False, soft_wrap=True)
    console.print("Ctrl-C stops it.")
