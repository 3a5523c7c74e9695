"""What README.md tells its readers to do, as it stands there, on real fleets."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from loadgen.runs.solo import solo_latencies
from pocket.captions import vocabulary
from pocket.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES
from services.fleet.cli.app import app
from shared.shipped import DEFAULT_LORAS
from tests.e2e.helpers.guide import ROOT, Reader, Step, assert_shows, steps
from tests.e2e.helpers.running import processes_with
from tests.e2e.test_keys import BEYOND, README

NOT_RUN = {
    "make demo": "needs the clone; test_guides.py runs it there",
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
    "controlled.png": RED,
    "controlled.json": RED,
    "edited.png": "a large green star left and a small blue square right on white",
    "drawn.png": RED,
    "edited.json": "a large green circle left and a small blue square right on white",
    "first.png": "a large green star left and a small blue square right on white",
    "second.png": "a large purple star left and a small blue square right on white",
    "red-star.png": "a large red star center on white",
}
"""What the README's files show at its end: those drawn from a seed, without LoRAs."""


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    # `--slo 2x` asks for each kind of requests alone, once for the figure and not five times.
    monkeypatch.setitem(solo_latencies.__kwdefaults__ or {}, "requests", 1)
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
            "DARKROOM_MODELS": os.pathsep.join(("pocket-sdxl", "pocket-flux")),
        }
        with Reader.beginning(place / "here", settings) as found:
            yield found
        assert processes_with("DARKROOM_STATE_DIR", settings["DARKROOM_STATE_DIR"]) == []


def excused(step: Step) -> list[str]:
    return [start for start in NOT_RUN if step.kind == "command" and step.text.startswith(start)]


def test_every_command_of_the_readme_runs_and_draws_what_it_says(reader: Reader) -> None:
    """Those beyond this machine are for a fleet under keys: `test_keys.py` runs them there."""
    told = {}
    for step in steps(README):
        if step.under != BEYOND and not excused(step):
            told[step.text] = reader.follow(step)
    for file, caption in PICTURES.items():
        assert_shows(reader.here / file, caption)
    cached = [said for text, said in told.items() if "--mask-mode cached" in text]
    assert "cached: computed in full" in cached[0]
    assert "approximate: mask_cached: image 0" in cached[1]


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
