"""What `darkroom up` says once the fleet is ready, and where it puts its bus."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services.fleet.cli import up as command
from services.fleet.plan.processes import FleetOptions
from services.fleet.supervisor.bus_server import BusServer
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.running import Fleet
from shared.bus.memory import MemoryBroker, MemoryBus
from tests.conftest import eventually, run


class Nobody:
    """A display that nobody looks at."""

    def fleet(self, children: Sequence[Child]) -> None:
        pass

    def event(self, stages: object, event: object) -> None:
        pass


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            FleetOptions(replicas={"denoiser": 3}, cores=8),
            "runs      3 denoisers of 2 threads each as chosen; --replicas denoiser=N and "
            "DARKROOM_THREADS choose otherwise",
        ),
        (FleetOptions(cores=1), "runs      1 denoiser of 1 thread for 1 core; --replicas"),
    ],
)
def test_up_says_which_layout_it_chose_and_how_to_choose_otherwise(
    options: FleetOptions, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("DARKROOM_THREADS", raising=False)
    given: list[FleetOptions] = []

    @asynccontextmanager
    async def no_processes(options: FleetOptions, **_: Any) -> AsyncIterator[Fleet]:
        given.append(options)
        bus = MemoryBus(MemoryBroker(), "test")
        server = BusServer(tmp_path, None, "127.0.0.1", None)  # that is not started
        yield Fleet(server, bus, (), "here:2", 0.5)

    monkeypatch.setattr(command, "running_fleet", no_processes)
    output = io.StringIO()

    async def scenario() -> None:
        console = Console(file=output, width=40)
        running = asyncio.create_task(
            command.up(options, tmp_path / "nats", None, console, Nobody())
        )
        await eventually(lambda: asyncio.sleep(0, "stops it" in output.getvalue()))
        running.cancel()
        await asyncio.wait([running])

    run(scenario())
    assert line in output.getvalue()
    assert given[0].replicas["denoiser"] == int(line.split()[1])


def test_up_says_what_somebody_else_has_to_run() -> None:
    options = FleetOptions(replicas={"denoiser": 0, "controlnet": 0, "vae": 2})
    [line] = command.left_out(options)
    assert line.startswith("denoiser ")


def test_the_bus_is_at_the_usual_port_if_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        monkeypatch.setattr(command, "NATS_PORT", port)
        assert command.choose_nats_port(None) is None
        assert command.choose_nats_port(port) == port  # asked for, it is refused rather than moved
    assert command.choose_nats_port(None) == port
    assert command.choose_nats_port(0) is None
