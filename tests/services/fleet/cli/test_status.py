"""The table of `darkroom status`."""

import dataclasses

from rich.console import Console

from services.fleet.cli.status import table, unusable_lines
from shared.bus.discovery import Service
from shared.bus.readiness import Refusal
from shared.bus.unusable import Unusable
from shared.client.fleet_state import Member
from shared.messages.components import ComponentState


def process(pid: int, refusal: Refusal | None, *warnings: str) -> Service:
    models = ("pocket-sdxl",)
    return Service("denoiser", pid, "i", "0.1.0", models, "", "here", refusal, warnings)


def test_what_works_says_what_should_be_put_right() -> None:
    console = Console(width=200, record=True)
    told = ("no certificate: [ssl] wrong", "no tokens")
    console.print(table([process(1, None, *told), process(2, Refusal("no memory"), "x")], []))
    text = console.export_text()
    assert "no certificate: [ssl] wrong; no tokens" in text
    assert "no memory; x" in text


def test_what_cannot_be_used_is_listed_once_with_its_reason() -> None:
    broken = Unusable(name="bad", source="x", kind="model", reason="no numbers")
    one, other = process(1, None), process(2, None)
    both = [dataclasses.replace(each, unusable=(broken,)) for each in (one, other)]
    assert unusable_lines(both) == ["not served: the model bad: no numbers"]
    held = dataclasses.replace(other, models=("bad",))
    assert not unusable_lines([both[0], held])  # another replica could load it


def test_who_takes_no_work_is_not_ready_and_who_is_away_is_listed_both_with_the_reason() -> None:
    members = [
        Member(name="denoiser-1", pid=1, state="ready", restarts=0),
        Member(name="denoiser-2", pid=2, state="ready", restarts=0),
        Member(name="vae", pid=None, state="backing off", restarts=3, why="the model is gone"),
    ]
    console = Console(width=200, record=True)
    console.print(table([process(1, None), process(2, Refusal("no memory"))], members))
    rows = {line.split("│")[1].strip(): line for line in console.export_text().splitlines()[3:-1]}
    assert "ready" in rows["denoiser-1"]
    assert "not ready" not in rows["denoiser-1"]
    assert "not ready" in rows["denoiser-2"]
    assert "no memory" in rows["denoiser-2"]
    assert "backing off" in rows["vae"]
    assert "the model is gone" in rows["vae"]


def test_how_components_stand_that_are_not_loaded_is_said_beside_those_that_are() -> None:
    components = (
        ComponentState(name="pocket-sdxl", state="loaded"),
        ComponentState(name="new", state="loading", seconds=4.2),
        ComponentState(name="broken", state="failed", reason="no file", seconds=8.0),
        ComponentState(name="large", state="on disk", reason="no room", seconds=3.0),
    )
    console = Console(width=240, record=True)
    console.print(table([dataclasses.replace(process(1, None), components=components)], []))
    said = "pocket-sdxl, new (loading, about 4 s), broken (failed, again in 8 s: no file), large ("
    assert f"{said}on disk: no room)" in console.export_text()
