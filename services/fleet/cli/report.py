"""What `darkroom render` says at the end: for people, and as one JSON object."""

import json

from rich.table import Table

from services.fleet.cli.render import Rendered
from services.fleet.cli.stages import KINDS, spent_by_kind
from shared.messages import GenerationRequest, JobDone


def as_json(rendered: Rendered) -> str:
    """The documented fields, on one line. Seconds of a stage are those of its slowest node."""
    done = rendered.done
    return json.dumps(
        {
            "job_id": done.job_id,
            "files": [str(file) for file in rendered.files],
            "seconds": round(done.seconds, 3),
            "stages": {
                kind: {"waiting": round(spent.waiting, 3), "running": round(spent.running, 3)}
                for kind, spent in spent_by_kind(done.stages).items()
            },
            "steps": done.steps,
            "seed": done.seed,
            "model": done.model,
            "approximations": done.approximations,
            "warnings": done.warnings,
        }
    )


def as_table(rendered: Rendered) -> Table:
    """Where the time went, in seconds."""
    table = Table("", "waiting", "running", title="seconds", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    if rendered.fleet_seconds is not None:
        table.add_row("start of the fleet", "", f"{rendered.fleet_seconds:.2f}")
    spent = spent_by_kind(rendered.done.stages)
    for kind in sorted(spent, key=_order):
        table.add_row(kind, f"{spent[kind].waiting:.2f}", f"{spent[kind].running:.2f}")
    table.add_row("the job", "", f"{rendered.done.seconds:.2f}")
    table.add_row("everything", "", f"{rendered.total_seconds:.2f}", style="bold")
    return table


def approximations(request: GenerationRequest, done: JobDone) -> list[str]:
    """What makes the result differ from an exact one, or why a cached mask saved nothing."""
    lines = [f"approximate: {one}" for one in done.approximations]
    cached = any(one.startswith("mask_cached") for one in done.approximations)
    if request.mask_mode == "cached" and not cached:
        lines.append(
            "cached: computed in full. The first edit of an image records what later ones use; "
            "LoRAs, ControlNets, and masks that show nearly all of it, prevent that."
        )
    return lines


def warnings(done: JobDone) -> list[str]:
    """What of the request had no effect."""
    return [f"warning: {one}" for one in done.warnings]


def _order(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
