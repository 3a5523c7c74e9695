"""Real fleets for end-to-end tests: `darkroom up` in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from services.fleet.cli.app import app
from shared.client import Darkroom
from shared.client.fleet_state import FleetState, Member, read
from tests.chaos.fleet.fleets import INJECTING
from tests.chaos.fleet.holds import Hold, hold
from tests.chaos.harm.points import prepared
from tests.conftest import HANG_SECONDS, eventually, run

DARKROOM = (sys.executable, "-m", "services.fleet")
ONE_DENOISER = ("--replicas", "denoiser=1")
"""The same processes on every machine, however many cores it has."""


@dataclass(frozen=True)
class RunningFleet:
    """`environment` is one in which the command line finds this fleet."""

    environment: dict[str, str]
    arenas: Path
    points: Path
    """Where `hold` arms its holds."""

    @property
    def state(self) -> FleetState:
        found = read(Path(self.environment["DARKROOM_STATE_DIR"]))
        assert found is not None, "the fleet is gone"
        return found

    @property
    def nats_url(self) -> str:
        return self.state.nats_url

    @property
    def http(self) -> str:
        """`http://host:port` of the gateway."""
        return f"http://{self.state.http}"

    def member(self, name: str) -> Member:
        return next(member for member in self.state.members if member.name == name)

    def kill(self, name: str) -> None:
        """`kill -9` of a service; the supervisor starts another one."""
        pid = self.member(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def hold(self, place: str) -> AbstractContextManager[Hold]:
        """See `tests/chaos/fleet/holds.py`."""
        return hold(self.points, place)

    def darkroom(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the command line answers, asked in this process, where no event loop may run."""
        done = CliRunner().invoke(app, arguments, env=self.environment, catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def processes_with(variable: str, value: str) -> list[str]:
    """Command lines of the running processes that have this in their environment."""
    mark = f"{variable}={value}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            continue
    return found


@contextmanager
def running_fleet(
    *arguments: str, replicas: tuple[str, ...] = ONE_DENOISER
) -> Iterator[RunningFleet]:
    """A fleet, made by `darkroom up` with `arguments`, that is ready to work; nothing of it may be
    left afterwards."""
    with (
        tempfile.TemporaryDirectory() as here,
        tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as shared,
    ):
        arenas = Path(shared) / "arenas"
        environment = {
            **os.environ,
            "DARKROOM_STATE_DIR": str(Path(here) / "state"),
            "DARKROOM_ARENA_DIR": str(arenas),
            "DARKROOM_TEMPLATE_DIR": str(Path(here) / "templates"),
            "DARKROOM_ACK_WAIT": "3",
            "DARKROOM_CHECKPOINT_SECONDS": "0",
            "DARKROOM_CONTROL_SECONDS": str(HANG_SECONDS),
        }
        points = Path(here) / "points"
        injected = {**environment, **INJECTING, **prepared(points)}
        log = Path(here) / "up.log"
        with log.open("w") as output:
            up = subprocess.Popen(
                [*DARKROOM, "up", "--port", "0", *replicas, *arguments],
                env=injected,
                stdout=output,
                stderr=output,
            )
            try:
                run(eventually(lambda: _found(environment, up, log)))
                yield RunningFleet(environment, arenas, points)
            finally:
                up.send_signal(signal.SIGTERM)
                up.wait(HANG_SECONDS)
        assert processes_with("DARKROOM_STATE_DIR", environment["DARKROOM_STATE_DIR"]) == []
        assert list(arenas.iterdir()) == []
        assert read(Path(environment["DARKROOM_STATE_DIR"])) is None


async def checkpointed(darkroom: Darkroom, job_id: str, step: int) -> None:
    """Return when the row of the job's first image would go on from `step` elsewhere."""

    async def written() -> bool:
        checkpoint = (await darkroom.job(job_id)).nodes["denoise-0"].checkpoint
        return checkpoint is not None and checkpoint.step == step

    await eventually(written)


async def _found(environment: dict[str, str], up: subprocess.Popen[bytes], log: Path) -> bool:
    return _state(environment, up, log) is not None


def _state(
    environment: dict[str, str], up: subprocess.Popen[bytes], log: Path
) -> FleetState | None:
    assert up.poll() is None, log.read_text()
    directory = Path(environment["DARKROOM_STATE_DIR"])
    return read(directory) if directory.is_dir() else None
