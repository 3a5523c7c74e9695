"""What README.md and docs/nats.md tell their readers to do, as it stands there, on real fleets."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.core import TyperGroup

from pocket.captions import parse, vocabulary
from pocket.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES
from pocket.verify import read, score
from services.fleet.cli import app
from shared.shipped import DEFAULT_LORAS
from tests.conftest import HANG_SECONDS
from tests.e2e.guide import ROOT, Reader, Step, steps
from tests.e2e.running import RunningFleet, processes_with

README, GUIDE = ROOT / "README.md", ROOT / "docs" / "nats.md"

NOT_RUN = {
    "make demo": "needs the clone; a test below runs it there",
    "make test": "this suite",
    ". .venv/bin/activate": "the clone's environment is active already",
    'darkroom render "a red star" --lora hub:owner/repo': "neither exists, and nothing is fetched",
    "darkroom load --find-rate": "searches for minutes; tests/loadgen/test_find_rate.py",
    "DARKROOM_DEVICE=cuda": "needs a GPU, and 7 GB from a hub",
}
"""Commands by how they begin, and why no reader in a test can follow them."""


RED = "a large red circle left on white"
PICTURES = {
    "star.png": "a small yellow star top on navy",
    "openai.png": "a large red circle left and a small blue square right on white",
    "steered.png": RED,
    "steered.json": RED,
    "edited.png": "a large green star left and a small blue square right on white",
    "drawn.png": RED,
    "edited.json": "a large green circle left and a small blue square right on white",
    "first.png": "a large green star left and a small blue square right on white",
    "second.png": "a large purple star left and a small blue square right on white",
    "red-star.png": "a large red star center on white",
    "secret.png": RED,
}
"""What the README's files show at its end: those drawn from a seed, without LoRAs."""


@pytest.fixture
def reader() -> Iterator[Reader]:
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as shared,
    ):
        place = Path(directory)
        (place / "here").mkdir()
        shutil.copytree(DEFAULT_LORAS, place / "loras")  # calibrating writes there
        settings = {
            "DARKROOM_STATE_DIR": str(place / "state"),
            "DARKROOM_ARENA_DIR": f"{shared}/arenas",
            "DARKROOM_TEMPLATE_DIR": str(place / "templates"),
            "DARKROOM_LORA_DIR": str(place / "fetched"),
            "DARKROOM_LORAS": str(place / "loras"),
        }
        with Reader.beginning(place / "here", settings) as found:
            yield found
        assert processes_with("DARKROOM_STATE_DIR", settings["DARKROOM_STATE_DIR"]) == []


def excused(step: Step) -> list[str]:
    return [start for start in NOT_RUN if step.kind == "command" and step.text.startswith(start)]


def test_every_command_of_the_readme_runs_and_draws_what_it_says(reader: Reader) -> None:
    told = {}
    for step in steps(README):
        if not excused(step):
            told[step.text] = reader.follow(step)
    for file, caption in PICTURES.items():
        assert_shows(reader.here / file, caption)
    cached = [said for text, said in told.items() if "--mask-mode cached" in text]
    assert "cached: computed in full" in cached[0]
    assert "approximate: mask_cached: image 0" in cached[1]


def assert_shows(file: Path, caption: str) -> None:
    """`file`: a picture, or a gateway's answer with one."""
    content = file.read_bytes()
    if file.suffix == ".json":
        content = base64.b64decode(json.loads(content)["data"][0]["b64_json"])
    with Image.open(io.BytesIO(content)) as picture:
        seen = read(np.asarray(picture.convert("RGB")))
    assert all(all(right) for right in score(parse(caption), seen).values()), (file.name, seen)


def test_every_excuse_is_of_one_command() -> None:
    found = [start for step in steps(README) for start in excused(step)]
    assert sorted(found) == sorted(NOT_RUN)


def test_commands_in_running_text_exist_with_their_options() -> None:
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    for page in (README, *(ROOT / "docs").glob("*.md"), ROOT / "CHANGELOG.md"):
        for text in re.findall(r"`(darkroom [^`]+)`", page.read_text()):
            assert_exists(commands, text.split()[1:], f"{page.name}: {text}")


def assert_exists(group: TyperGroup, words: list[str], where: str) -> None:
    for name in words[0].split("|"):
        command = group.commands.get(name)
        if name.startswith("-") or not name.islower():
            continue
        assert command is not None, where
        if isinstance(command, TyperGroup) and len(words) > 1:
            assert_exists(command, words[1:], where)
        known = {option for one in command.params for option in one.opts}
        assert {word for word in words if re.match(r"--\w", word)} <= known, where


def test_the_readme_names_all_that_the_pocket_models_know() -> None:
    said = set(re.findall(r"`(\w+)`", README.read_text()))
    world = {*SHAPES, *SIZES, *PLACES, *COLOURS, *BACKGROUNDS}
    assert world <= said
    assert world <= set(vocabulary())


def test_make_demo_paints_what_it_says_and_leaves_nothing_behind() -> None:
    with (
        tempfile.TemporaryDirectory() as state,
        tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as arenas,
    ):
        environment = {
            **os.environ,
            "DARKROOM_STATE_DIR": f"{state}/state",
            "DARKROOM_ARENA_DIR": arenas,
        }
        done = subprocess.run(
            ["make", "-C", str(ROOT), "demo", f"VENV={sys.prefix}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        assert "out/demo.png" in done.stdout
        caption = "a large red circle left and a small blue square right on white"
        assert caption in README.read_text()
        assert_shows(ROOT / "out" / "demo.png", caption)
        assert processes_with("DARKROOM_STATE_DIR", environment["DARKROOM_STATE_DIR"]) == []
        assert list(Path(arenas).iterdir()) == []


def test_every_command_of_the_guide_to_nats_runs(fleet: RunningFleet, tmp_path: Path) -> None:
    reader = Reader.beginning(tmp_path, fleet.environment)
    told = [reader.follow(step) for step in steps(GUIDE) if step.kind == "program"]
    drawn, fetched, cancelled = (
        reader.follow(step) for step in steps(GUIDE) if step.kind == "command"
    )
    assert told == ["", "", ""]
    assert "image 0: step 12 of 12" in drawn
    assert fetched.startswith("done: ")
    assert cancelled == "done\n"
    assert_shows(tmp_path / "image-0.png", "a large red circle left on white")


def test_programs_of_the_guide_need_nothing_of_ours() -> None:
    programs = {step.file: step.text for step in steps(GUIDE) if step.kind == "program"}
    assert set(programs) == {"draw.py", "fetch.py", "cancel.py"}
    for source in programs.values():
        imported = set(re.findall(r"^import (\w+)", source, re.MULTILINE))
        assert imported <= {"asyncio", "pathlib", "sys", "uuid", "msgpack", "nats"}
        assert "from " not in re.sub(r"#.*", "", source)
