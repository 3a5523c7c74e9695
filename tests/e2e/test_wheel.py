"""The wheel: all that runs is in it, and it draws a picture far from the source tree."""

import email
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import HANG_SECONDS
from tests.e2e.helpers.guide import ROOT
from tests.e2e.helpers.running import processes_with

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [
    pattern.rstrip("*")
    for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
]
MADE = shutil.ignore_patterns("__pycache__", "*.pyc")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")


def finished(
    *command: str | Path, here: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        env={**ours, **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        cwd=here,
    )
    assert done.returncode == 0, done.stderr
    return done


def called(*command: str | Path, here: Path | None = None) -> str:
    return finished(*command, here=here).stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """Built from a copy of what is to be in it: building leaves files beside the sources."""
    source = place / "source"
    source.mkdir()
    project = PYPROJECT["project"]
    for name in ("pyproject.toml", project["readme"], *project["license-files"]):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=MADE)
    called(
        *PIP,
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        place / "wheels",
        source,
    )
    [built] = (place / "wheels").iterdir()
    shutil.rmtree(source)
    return built


@pytest.fixture(scope="module")
def python(place: Path, wheel: Path) -> Path:
    """Of an environment with the wheel, which finds what Darkroom depends on where this one does,
    and nothing of the source tree."""
    environment = place / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    called(*PIP, "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel)
    [packages] = environment.glob("lib/python*/site-packages")
    installed = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "dependencies.pth").write_text("\n".join(installed))
    nats_server = Path(sys.executable).parent / "nats-server"
    (environment / "bin" / "nats-server").symlink_to(nats_server.resolve())
    return python


def test_every_file_of_a_package_is_in_the_wheel(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    wanted = {name for name in files if not name.endswith(".md")}
    assert "pocket/models/pocket-sdxl/unet/diffusion_pytorch_model.safetensors" in wanted
    assert {"darkroom/py.typed", "shared/py.typed"} <= wanted
    assert wanted - packed == set()
    beside = {name.split("/")[0] for name in packed - files}
    assert [name for name in beside if not name.endswith(".dist-info")] == []


def test_the_wheel_says_what_it_is_and_under_which_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [info] = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        told = email.message_from_string(archive.read(f"{info}/METADATA").decode())
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert archive.read(f"{info}/licenses/NOTICE") == (ROOT / "NOTICE").read_bytes()
    assert told["Name"] == "darkroom"
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Author"] == "The Darkroom developers"
    assert told.get_payload() == (ROOT / "README.md").read_text()


def test_the_installed_wheel_is_what_is_imported(python: Path, place: Path) -> None:
    program = "import darkroom, services, pocket; print(darkroom.__file__, darkroom.__version__)"
    file, version = called(python, "-c", program, here=place).split()
    assert Path(file).is_relative_to(python.parents[1])
    assert version in next((place / "wheels").iterdir()).name


def test_render_from_the_wheel_starts_a_fleet_draws_and_leaves_nothing(
    python: Path, place: Path
) -> None:
    """Nothing here is shared with other fleets on this machine. `make demo` has ControlNets too."""
    state = str(place / "state")
    with tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as arenas:
        done = finished(
            python.with_name("darkroom"),
            *("render", "a large red circle left on white", "--seed", "1", "--steps", "4"),
            *("--json", "--out", "deep/drawn.png"),
            here=place,
            DARKROOM_STATE_DIR=state,
            DARKROOM_ARENA_DIR=arenas,
            DARKROOM_CONTROLS="",
        )
        assert list(Path(arenas).iterdir()) == []
    report = json.loads(done.stdout)
    assert report.keys() == {
        *("job_id", "files", "seconds", "stages", "steps", "seed", "model"),
        *("approximations", "warnings"),
    }
    assert report["files"] == ["deep/drawn.png"]
    assert report["steps"] == 4
    assert report["stages"].keys() == {"encode", "denoise", "decode"}
    for spent in report["stages"].values():
        assert spent.keys() == {"waiting", "running"}
    for stage in ("encode", "denoise", "decode"):
        assert f"{stage}: done" in done.stderr
    assert "denoise: running 1/4" in done.stderr
    with Image.open(place / "deep" / "drawn.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (128, 128))
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1
    assert processes_with("DARKROOM_STATE_DIR", state) == []
