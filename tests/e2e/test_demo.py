"""The whole of it as a newcomer meets it: the command line, real processes, the model that ships."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.fleet import state
from tests.conftest import eventually, run

PROMPT = "a large red circle left and a small blue square right on white"
DARKROOM = (sys.executable, "-m", "services.fleet")

Environment = dict[str, str]


def surroundings(state_directory: Path, arenas: Path) -> Environment:
    """An environment in which nothing is shared with other fleets on this machine."""
    return {
        **os.environ,
        "DARKROOM_STATE_DIR": str(state_directory),
        "DARKROOM_ARENA_DIR": str(arenas),
    }


@pytest.fixture
def arenas() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as directory:
        yield Path(directory)


def processes_of(environment: Environment) -> list[str]:
    """Command lines of the running processes that were started with this environment's state
    directory."""
    mark = f"DARKROOM_STATE_DIR={environment['DARKROOM_STATE_DIR']}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            continue
    return found


def darkroom(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DARKROOM, *arguments], env=environment, capture_output=True, text=True, timeout=240
    )


def assert_is_picture(file: Path) -> None:
    with Image.open(file) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (128, 128)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 1


def test_render_alone_starts_a_fleet_draws_and_leaves_nothing(tmp_path: Path, arenas: Path) -> None:
    environment = surroundings(tmp_path / "state", arenas)
    out = tmp_path / "deep" / "picture.png"

    done = darkroom(environment, "render", PROMPT, "--json", "--steps", "4", "--out", str(out))

    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report.keys() == {"job_id", "files", "seconds", "stages", "steps", "seed", "model"}
    assert report["files"] == [str(out)]
    assert report["steps"] == 4
    assert report["stages"].keys() == {"encode", "denoise", "decode"}
    for spent in report["stages"].values():
        assert spent.keys() == {"waiting", "running"}
    assert_is_picture(out)
    for stage in ("encode", "denoise", "decode"):
        assert f"{stage}: done" in done.stderr
    assert "denoise: running 1/4" in done.stderr
    assert processes_of(environment) == []
    assert list(arenas.iterdir()) == []


@pytest.fixture(scope="module")
def fleet() -> Iterator[Environment]:
    """The environment in which `darkroom up` runs a fleet."""
    with (
        tempfile.TemporaryDirectory() as here,
        tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as shared,
    ):
        environment = surroundings(Path(here) / "state", Path(shared))
        log = Path(here) / "up.log"
        with log.open("w") as output:
            up = subprocess.Popen(
                [*DARKROOM, "up", "--port", "0"], env=environment, stdout=output, stderr=output
            )
            try:
                run(eventually(lambda: _found(environment, up, log), within=150), timeout=160)
                yield environment
            finally:
                up.send_signal(signal.SIGTERM)
                up.wait(60)
        assert processes_of(environment) == []
        assert list(Path(shared).iterdir()) == []
        assert state.read(Path(environment["DARKROOM_STATE_DIR"])) is None


async def _found(environment: Environment, up: subprocess.Popen[bytes], log: Path) -> bool:
    assert up.poll() is None, log.read_text()
    directory = Path(environment["DARKROOM_STATE_DIR"])
    return directory.is_dir() and state.read(directory) is not None


def _state(environment: Environment) -> state.FleetState:
    found = state.read(Path(environment["DARKROOM_STATE_DIR"]))
    assert found is not None
    return found


def test_render_uses_the_fleet_that_runs(fleet: Environment, tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    done = darkroom(fleet, "render", PROMPT, "--steps", "3", "-n", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "fleet" not in done.stdout
    assert "denoise: done 6/6" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "picture-1.png")
    assert_is_picture(tmp_path / "picture-0.png")
    assert_is_picture(tmp_path / "picture-1.png")


def test_the_same_seed_draws_the_same_picture(fleet: Environment, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        arguments = ("--steps", "3", "--seed", "7", "--out", str(tmp_path / name))
        assert darkroom(fleet, "render", PROMPT, *arguments).returncode == 0
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        assert one.tobytes() == other.tobytes()


def test_what_the_services_refuse_is_bad_usage(fleet: Environment, tmp_path: Path) -> None:
    done = darkroom(fleet, "render", PROMPT, "--size", "100x128", "--out", str(tmp_path / "a.png"))
    assert done.returncode == 2
    assert "width" in done.stderr
    assert not (tmp_path / "a.png").exists()


def test_a_url_chooses_the_fleet(fleet: Environment, tmp_path: Path) -> None:
    elsewhere = {**fleet, "DARKROOM_STATE_DIR": str(tmp_path / "other")}
    address = _state(fleet).nats_url
    assert "denoiser" in darkroom(elsewhere, "status", "--url", address).stdout
    out = str(tmp_path / "a.png")
    arguments = ("render", PROMPT, "--steps", "2", "--url", address, "--out", out)
    assert darkroom(elsewhere, *arguments).returncode == 0


def test_ctrl_c_cancels_the_job_and_leaves(fleet: Environment, tmp_path: Path) -> None:
    out = tmp_path / "never.png"
    render = subprocess.Popen(
        [*DARKROOM, "render", PROMPT, "--steps", "1000", "--out", str(out)],
        env=fleet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with render:
        assert render.stdout is not None
        for line in render.stdout:
            if line.startswith("denoise: running 2/"):
                break
        render.send_signal(signal.SIGINT)
        assert render.wait(30) == 130
    assert not out.exists()

    async def idle() -> bool:
        return "nodes waiting or running: 0" in darkroom(fleet, "status").stdout

    run(eventually(idle, within=30), timeout=40)


def test_a_killed_service_comes_back_and_its_restart_is_shown(
    fleet: Environment, tmp_path: Path
) -> None:
    [vae] = [member for member in _state(fleet).members if member.name == "vae"]
    assert vae.pid is not None
    os.kill(vae.pid, signal.SIGKILL)
    out = tmp_path / "after.png"

    done = darkroom(fleet, "render", PROMPT, "--steps", "2", "--out", str(out))

    assert done.returncode == 0, done.stderr
    assert_is_picture(out)
    shown = darkroom(fleet, "status").stdout
    assert re.search(rf"vae\W+(?!{vae.pid}\b)\d+\W+ready\W+1\b", shown), shown


def test_a_second_fleet_is_refused_while_one_runs(fleet: Environment) -> None:
    done = darkroom(fleet, "up", "--port", "0")
    assert done.returncode == 1
    assert "runs already" in done.stderr
