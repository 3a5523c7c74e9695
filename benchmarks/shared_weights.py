"""What two denoisers of one model hold in memory, with their weights on shared pages and without.

Each fleet is new, has two denoisers, and serves a model of some 240 million random weights in
float32, which are float32 in its files or float16. `shared`: converted weights are kept on disk, as
by default; `private`: they are not (`DARKROOM_WEIGHTS_DISK_BYTES=0`). Memory is the
proportional set size (PSS) of the denoisers, each page divided by how many processes have it: after
the start; while one of them has a LoRA for all layers of the transformer blocks merged into its
weights; and when it was taken out again.

`held`: what both denoisers hold together at those three moments, beyond what two of a model of next
to nothing hold (`empty_bytes`: interpreters, libraries), over the bytes of the weights; 2 is two
copies, 1 is one. What steps need in memory is in it. `mapped`: of that, pages of files and what was
made of them. `process_bytes`: PSS of all that both hold. `merged_bytes`: pages of weights that the
merging denoiser has for itself; `lora_layer_bytes`: weights of the layers that the LoRA changes.
`step_seconds`: of a plain job alone, the median of three.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Final

from safetensors.torch import load_file, save_file

from benchmarks.harness.fleet import OwnFleet, own_fleet, render
from benchmarks.harness.large_model import LARGE, SMALL, large_model, lora_file, lora_layers
from benchmarks.harness.processes import Resident
from benchmarks.harness.program import Cells, Options, Results, count_to, run_program, say
from shared.client import Darkroom
from shared.messages import GenerationRequest
from shared.messages.requests import LoraChoice

FILES: Final = ("float32", "float16")
SIDES: Final = {"private": {"DARKROOM_WEIGHTS_DISK_BYTES": "0"}, "shared": {}}
LORA: Final = "all"
MERGED_STEPS: Final = 20
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
        models = {"float32": model, "float16": _halved(model, Path(here) / "halves")}
        weights = sum(file.stat().st_size for file in (model / "unet").glob("*.safetensors"))
        changed = 4 * sum(inner * outer for inner, outer in lora_layers(model).values())
        found: dict[str, list[Visit]] = {}
        empty = await _empty(large_model(Path(here) / "empty", SMALL))
        say(f"without a model: {empty} bytes")
        for number in range(rounds):
            for files, side in product(FILES, SIDES):
                visit = await _visit(models[files], side, options.quick)
                found.setdefault(f"{files} {side}", []).append(visit)
                say(f"round {number + 1}/{rounds}, {files} {side}: {visit}")
    return {"empty_bytes": empty, "weights_bytes": weights, "lora_layer_bytes": changed} | {
        name: summary(visits, weights, empty) for name, visits in found.items()
    }


def _halved(model: Path, directory: Path) -> Path:
    """A copy of `model` whose UNet is float16 in its file. Returns it."""
    shutil.copytree(model, directory)
    [path] = (directory / "unet").glob("*.safetensors")
    halves = {name: weight.half() for name, weight in load_file(path).items()}
    path.unlink()
    save_file(halves, path, {"format": "pt"})
    return directory


def summary(visits: list[Visit], weights: int, empty: int) -> Results:
    """Of fleets of one kind, whose denoisers need `weights` bytes, and `empty` bytes without them:
    medians."""
    moments = {
        name: [getattr(visit, name) for visit in visits]
        for name in ("started", "merged", "restored")
    }
    return {
        "held": {
            name: round(median(one.process - empty for one in found) / weights, 3)
            for name, found in moments.items()
        },
        "mapped": {
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


async def _empty(model: Path) -> int:
    """What two denoisers hold but for the weights of such a `model`."""
    async with own_fleet(
        str(model), denoisers=2, environment={"DARKROOM_CONTROLS": "", "DARKROOM_LORAS": ""}
    ) as fleet:
        found = _moment(fleet, model)
        return found.process - found.weights


async def _visit(model: Path, side: str, quick: bool) -> Visit:
    environment = {
        **SIDES[side],
        "DARKROOM_CONTROLS": "",
        "DARKROOM_LORAS": str(model.parent / "loras"),
    }
    async with own_fleet(str(model), denoisers=2, environment=environment) as fleet:
        started = _moment(fleet, model)
        steps = 1 if quick else 2
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
    for files, side in product(FILES, SIDES):
        one = report[f"{files} {side}"]
        held, whole = one["held"], one["process_bytes"]["started"]
        table.append(
            [
                f"{files} {side}",
                f"{report['weights_bytes'] / 1e6:.0f} MB",
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
