"""What two denoisers of one model hold in memory, with their weights on shared pages and without.

Each fleet is new, has two denoisers, and serves a model of some 240 million random weights, once as
they are in its files (float32), and once converted (bfloat16). `shared`: converted weights are kept
on disk, as by default; `private`: they are not (`DARKROOM_WEIGHTS_DISK_BYTES=0`). Memory is the
proportional set size (PSS) of the denoisers, each page divided by how many processes have it: after
the start; while one of them has a LoRA for all layers of the transformer blocks merged into its
weights; and when it was taken out again.

`held`: PSS of the weights, of both denoisers together, over the bytes of the weights, at those
three moments; 2 is two copies, 1 is one. `process_bytes`: PSS of all that both hold, interpreters
and libraries included. `merged_bytes`: pages of weights that the merging denoiser has for itself;
`lora_layer_bytes`: weights of the layers that the LoRA changes. `step_seconds`: of a plain job
alone, the median of three.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.harness.fleet import OwnFleet, own_fleet, render
from benchmarks.harness.large_model import LARGE, SMALL, large_model, lora_file, lora_layers
from benchmarks.harness.processes import Resident
from benchmarks.harness.program import Cells, Options, Results, count_to, run_program, say
from shared.client import Darkroom
from shared.messages import GenerationRequest
from shared.messages.requests import LoraChoice

DTYPES: Final = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""
SIDES: Final = {"private": {"DARKROOM_WEIGHTS_DISK_BYTES": "0"}, "shared": {}}
LORA: Final = "all"
MERGED_STEPS: Final = 30
"""So many that it pays to merge a LoRA (`services/denoiser/loras/merging.py`)."""
TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Moment:
    """Of both denoisers together, in bytes; `own`: pages of weights that the one has for itself
    which has more of them."""

    weights: int
    process: int
    own: int


@dataclass(frozen=True, slots=True)
class Visit:
    """One fleet."""

    started: Moment
    merged: Moment
    restored: Moment
    step_seconds: float


async def measure(options: Options) -> Results:
    rounds = options.own.rounds or 1
    size = SMALL if options.quick else LARGE
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as here:
        model = large_model(Path(here) / "model", size)
        lora_file(Path(here) / "loras" / f"{LORA}.safetensors", model, 1 << 20)
        weights = sum(file.stat().st_size for file in (model / "unet").glob("*.safetensors")) // 4
        changed = sum(inner * outer for inner, outer in lora_layers(model).values())
        found: dict[str, list[Visit]] = {}
        for number in range(rounds):
            for dtype in DTYPES:
                for side in SIDES:
                    visit = await _visit(model, dtype, side, options.quick)
                    found.setdefault(f"{dtype} {side}", []).append(visit)
                    say(f"round {number + 1}/{rounds}, {dtype} {side}: {visit}")
    return {
        name: summary(visits, DTYPES[name.split()[0]] * weights)
        | {"lora_layer_bytes": DTYPES[name.split()[0]] * changed}
        for name, visits in found.items()
    }


def summary(visits: list[Visit], weights: int) -> Results:
    """Of fleets of one kind, whose denoisers need `weights` bytes: medians."""
    moments = {
        name: [getattr(visit, name) for visit in visits]
        for name in ("started", "merged", "restored")
    }
    return {
        "weights_bytes": weights,
        "held": {
            name: round(median(one.weights for one in found) / weights, 3)
            for name, found in moments.items()
        },
        "process_bytes": {
            name: int(median(one.process for one in found)) for name, found in moments.items()
        },
        "merged_bytes": int(median(visit.merged.own for visit in visits)),
        "step_seconds": round(median(visit.step_seconds for visit in visits), 4),
        "visits": [asdict(visit) for visit in visits],
    }


async def _visit(model: Path, dtype: str, side: str, quick: bool) -> Visit:
    environment = {
        **SIDES[side],
        "DARKROOM_DTYPE": dtype,
        "DARKROOM_CONTROLS": "",
        "DARKROOM_LORAS": str(model.parent / "loras"),
    }
    async with own_fleet(str(model), denoisers=2, environment=environment) as fleet:
        started = _moment(fleet, model)
        steps = 2 if quick else 5
        alone = [await _seconds(fleet.darkroom, f"plain-{k}", steps) for k in range(3)]
        merged = await _merging(fleet, model)
        for number in range(TRIES):  # until the denoiser that has the LoRA gets a plain row
            await _seconds(fleet.darkroom, f"after-{number}", 1)
            if (restored := _moment(fleet, model)).own <= started.own:
                break
        return Visit(started, merged, restored, median(alone))


async def _merging(fleet: OwnFleet, model: Path) -> Moment:
    """In the middle of a job with the LoRA."""
    request = _request("merged", MERGED_STEPS, loras=(LoraChoice(name=LORA),))
    await render(fleet.darkroom, request)
    return _moment(fleet, model)


async def _seconds(darkroom: Darkroom, job_id: str, steps: int) -> float:
    """Of a step."""
    began = time.perf_counter()
    await render(darkroom, _request(job_id, steps))
    return (time.perf_counter() - began) / steps


def _request(job_id: str, steps: int, loras: tuple[LoraChoice, ...] = ()) -> GenerationRequest:
    return GenerationRequest(job_id=job_id, prompt="a red circle", steps=steps, seed=1, loras=loras)


def _moment(fleet: OwnFleet, model: Path) -> Moment:
    pids = [
        child.pid
        for child in fleet.fleet.children
        if child.pid is not None and child.spec.name.startswith("denoiser")
    ]
    mapped = [
        [Resident.of_files(pid, place) for place in (model / "unet", fleet.weights)] for pid in pids
    ]
    return Moment(
        weights=sum(one.pss for each in mapped for one in each),
        process=sum(Resident.of_process(pid).pss for pid in pids),
        own=max(sum(one.own for one in each) for each in mapped),
    )


def rows(report: Results) -> Cells:
    table: Cells = [["", "weights", "held", "merged", "restored", "processes", "own", "step"]]
    for dtype in DTYPES:
        for side in SIDES:
            one = report[f"{dtype} {side}"]
            held, whole = one["held"], one["process_bytes"]["started"]
            table.append(
                [
                    f"{dtype} {side}",
                    f"{one['weights_bytes'] / 1e6:.0f} MB",
                    *(f"{held[name]:.2f}" for name in ("started", "merged", "restored")),
                    f"{whole / 1e6:.0f} MB",
                    f"{one['merged_bytes'] / 1e6:.0f} MB",
                    f"{one['step_seconds']:.3f} s",
                ]
            )
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=count_to(100), help="of all four fleets (default 1)")


if __name__ == "__main__":
    run_program("shared_weights", __doc__ or "", measure, rows, add_arguments)
