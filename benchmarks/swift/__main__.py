"""Images with 0 to 3 ControlNets (C) and 0 to 2 LoRAs (L), from diffusers and from a fleet.

The table of SwiftDiffusion (arXiv 2407.02031), for a UNet of realistic size with random weights
(`large_model.py`), a core being a device. diffusers has one (`diffusers`), as in the paper, or all
of them with a thread for each (`diffusers_all_cores`); the fleet has one for its denoiser and those
that are left for the ControlNets' processes, which share them if they are too few, with everything
else that runs. One guided image at a time; all three take turns for each cell, in changing order,
after a round of short images that does not count. Figures are medians, `ratio_3c2l` that of the
ratios to `diffusers` within a round.

LoRAs are files of 50 MB that were written just before and that neither side has ever seen, for in
the paper's trace hardly any comes back. The fleet takes up to a fifth of the steps before it has
them (`lora_late_steps`; no `control_lag`). diffusers loads and sets them for each image, and fuses
them if that is faster for so many steps, as tried on the spot (`lora_trials`); to remove those of
the image before is not counted. Its ControlNets stay in memory: there is room, and loading them for
each image would only make it slower. Files are in the page cache for both.

`model`: what the measured parts add up to (`model.py`), here and with more devices.
"""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.baselines.reference import Baseline
from benchmarks.controlnet.fleet import control_fleet
from benchmarks.harness.budget import rounds_within
from benchmarks.harness.cpu_pinning import keeping_to
from benchmarks.harness.large_model import LARGE, SMALL, controlnet, large_model, parameters
from benchmarks.harness.large_model import Size as ModelSize
from benchmarks.harness.program import Options, Results, cores, run_program, say
from benchmarks.swift.model import Asked, Devices
from benchmarks.swift.parts import baseline_parts, fleet_parts
from benchmarks.swift.sides import ColdSides, Drawn
from benchmarks.swift.table import Cell, prediction, rows, summary
from shared.models.catalogue import Catalogue

ADD_ONS: Final = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 2))
"""ControlNets and LoRAs of each cell."""
KINDS: Final = ("edges", "blocks", "shading")
"""Of hints, for the ControlNets."""
LATE_SHARE: Final = 5
"""One of so many steps may be taken without the LoRAs: 10 of 50 in the paper."""


@dataclass(frozen=True, slots=True)
class Size:
    """`probe`: steps of an image that only measures a part. `seconds`: after which no further round
    begins, to leave time for the parts."""

    steps: int
    probe: int
    rounds: int
    seconds: float
    lora_bytes: int
    model: ModelSize


FULL: Final = Size(steps=12, probe=5, rounds=3, seconds=700.0, lora_bytes=50_000_000, model=LARGE)
QUICK: Final = Size(steps=4, probe=3, rounds=1, seconds=20.0, lora_bytes=500_000, model=SMALL)


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    probe = Asked(controls=0, loras=0, steps=size.probe)
    late = max(1, size.steps // LATE_SHARE)
    cells = [
        Asked(controls=c, loras=n, steps=size.steps, late=late if n else 0) for c, n in ADD_ONS
    ]
    async with _sides(size) as sides:
        trials = await sides.prepare(size.steps, probe)
        say(f"LoRAs are {'' if sides.fuse else 'not '}fused by diffusers: {trials}")
        rounds = await _rounds(sides, cells, size)
        found = summary(rounds)
        parts = await fleet_parts(sides, probe, len(KINDS))
        baseline = await baseline_parts(sides, probe, trials)
        here = Devices(controls=len(set(sides.cpu_pinning.controls)))
        return found | {
            "model": prediction(parts, baseline, cells, here, found["table"]),
            "steps": size.steps,
            "lora_late_steps": late,
            "lora_bytes": size.lora_bytes,
            "lora_fused_by_diffusers": sides.fuse,
            "lora_trials": {way: asdict(trial) for way, trial in trials.items()},
            "unet_parameters": parameters(sides.model),
        }


@asynccontextmanager
async def _sides(size: Size) -> AsyncIterator[ColdSides]:
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as name:
        here = Path(name)
        model, lora_directory = large_model(here / "large", size.model), here / "loras"
        lora_directory.mkdir()
        controls = [
            str(controlnet(here / "controls" / kind, model, seed=k)) for k, kind in enumerate(KINDS)
        ]
        catalogue = Catalogue.load([str(model)], [str(lora_directory)], controls)
        async with (
            control_fleet(str(model), controls, [str(lora_directory)]) as fleet,
            Baseline(str(model), cores()) as baseline,
        ):
            with keeping_to(fleet.cpu_pinning.others):
                yield ColdSides(fleet, baseline, model, catalogue, lora_directory, size.lora_bytes)


async def _rounds(sides: ColdSides, cells: Sequence[Asked], size: Size) -> list[list[Cell]]:
    rounds = []
    for number in rounds_within(size.seconds, size.rounds):
        if not number:  # warms up
            short = [replace(asked, steps=2, late=min(asked.late, 1)) for asked in cells]
            await _round(sides, short, number)
            continue
        rounds.append(await _round(sides, cells, number))
        last = rounds[-1][-1]
        say(f"round {number}/{size.rounds}: {last.asked.name} {last.ratio:.2f} times faster")
    return rounds


async def _round(sides: ColdSides, cells: Sequence[Asked], number: int) -> list[Cell]:
    return [await _cell(sides, asked, number) for asked in cells]


async def _cell(sides: ColdSides, asked: Asked, number: int) -> Cell:
    async with sides.loras(asked.loras) as files:
        request = sides.request(asked, list(files), seed=number)
        turns = {
            "fleet": lambda: sides.ours(request),
            "diffusers": lambda: sides.pipeline(request, files, sides.one_core),
            "diffusers_all_cores": lambda: sides.pipeline(request, files, sides.all_cores),
        }
        order = list(turns) if number % 2 else list(reversed(turns))
        drawn: dict[str, Drawn] = {side: await turns[side]() for side in order}
    return Cell(asked, drawn, _cores(sides, asked))


def _cores(sides: ColdSides, asked: Asked) -> Mapping[str, int]:
    return {
        "fleet": sides.cpu_pinning.held(asked.controls),
        "diffusers": len(sides.one_core),
        "diffusers_all_cores": len(sides.all_cores),
    }


if __name__ == "__main__":
    run_program("swift", __doc__ or "", measure, rows)
