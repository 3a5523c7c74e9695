import io
import json
from pathlib import Path

import msgspec
from rich.console import Console

from services.fleet.cli.progress import display
from services.fleet.cli.render import Rendered
from services.fleet.cli.report import approximations, as_json, as_table, warnings
from services.fleet.cli.stages import Stages
from shared.messages import GenerationRequest, JobDone, NodeProgress, StageTime, StepProgress


def rendered(fleet_seconds: float | None = 9.0) -> Rendered:
    stages = [
        StageTime(node=node, kind=kind, waiting=0.25, running=1.0, worker="w", attempts=1)
        for node, kind in (("decode-0", "decode"), ("denoise-0", "denoise"), ("encode", "encode"))
    ]
    done = JobDone(
        job_id="j1",
        model="toy",
        images=1,
        seed=3,
        steps=4,
        width=128,
        height=128,
        output_format="png",
        seconds=3.75,
        stages=stages,
        approximations=[],
        warnings=['prompt: what was cut is "b"'],
    )
    return Rendered(done, (Path("out/a.png"),), fleet_seconds, 14.0)


def text_of(shown: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_json_report_has_the_documented_fields() -> None:
    assert json.loads(as_json(rendered())) == {
        "job_id": "j1",
        "files": ["out/a.png"],
        "seconds": 3.75,
        "stages": {
            kind: {"waiting": 0.25, "running": 1.0} for kind in ("encode", "denoise", "decode")
        },
        "steps": 4,
        "seed": 3,
        "model": "toy",
        "approximations": [],
        "warnings": ['prompt: what was cut is "b"'],
    }


def test_people_are_told_what_was_approximated_and_when_a_cached_mask_saved_nothing() -> None:
    done = rendered().done
    exact = GenerationRequest(job_id="j", prompt="a")
    cached = msgspec.structs.replace(exact, mask_mode="cached")
    assert approximations(exact, done) == []
    [told] = approximations(cached, done)
    assert told.startswith("cached: computed in full")
    used = "mask_cached: image 0, 0.21 of tokens, 20 of steps 1 to 20"
    assert approximations(cached, msgspec.structs.replace(done, approximations=[used])) == [
        f"approximate: {used}"
    ]


def test_people_are_told_what_had_no_effect() -> None:
    assert warnings(rendered().done) == ['warning: prompt: what was cut is "b"']


def test_the_table_lists_the_stages_in_order_and_the_start_of_a_fleet_of_our_own() -> None:
    shown = text_of(as_table(rendered()))
    places = [shown.index(name) for name in ("start of the fleet", "encode", "denoise", "decode")]
    assert places == sorted(places)
    assert "start of the fleet" not in text_of(as_table(rendered(fleet_seconds=None)))


def test_without_a_terminal_every_change_is_one_plain_line() -> None:
    console = Console(file=io.StringIO())
    stages = Stages(images=1)
    with display(console) as shown:
        shown.event(stages, None)
        for step in (1, 1, 2):
            progress = StepProgress(
                job_id="j", node="denoise-0", index=0, step=step, steps=2, rows=1, at=0.0
            )
            shown.event(stages, progress)
        stages.finish()
        shown.event(stages, None)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "denoise: running 1/2",
        "denoise: running 2/2",
        "encode: done",
        "denoise: done 2/2",
        "decode: done",
    ]


def test_a_job_that_waits_says_its_place_and_how_long_it_takes() -> None:
    console = Console(file=io.StringIO())
    stages = Stages(images=1)
    with display(console) as shown:
        for state, position in (("started", 3), ("started", 3), ("finished", None)):
            event = NodeProgress(
                job_id="j",
                node="plan",
                kind="plan",
                state=state,  # type: ignore[arg-type]
                at=0.0,
                worker="planner-1",
                position=position,
                seconds=12.3,
            )
            shown.event(stages, event)
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == ["queue: place 3 in line, about 12 s"]


def test_on_a_terminal_every_stage_has_its_line() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with display(console) as shown:
        stages = Stages(images=2)
        stages.finish()
        shown.event(stages, None)
    for name in ("encode", "denoise", "decode"):
        assert name in console.file.getvalue()  # type: ignore[attr-defined]
