"""What the two approximations that may be asked for do to pictures, against the exact ones.

Late LoRAs: each LoRA joins after as many steps as it is calibrated for, on held-out captions.
Exactly then, which a fleet does not do: a LoRA joins when it was read. So these pictures are drawn
in this process, by the services' own parts (`pictures.py`). `control_lag`: each ControlNet's
answers are one step old, asked of a fleet, on captions that leave the places to the hint.

Pictures are compared by SSIM (`ssim.py`), and both judged by the verifier, which is told nothing of
styles: it fails on many exact pictures of a LoRA as well, so that only the difference says
anything, and a style's own number (`pocket/verify_style.py`) says more. How far pictures without
the LoRA, or without the ControlNet, are from the exact ones tells what the figures are worth.
`--plot` draws the SSIM against the step after which a LoRA joins.
"""

import argparse
import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import msgspec
import torch

from benchmarks.controlnet.requests import hint
from benchmarks.fidelity.pictures import Painter, Picture
from benchmarks.fidelity.plot import late_plot
from benchmarks.harness import requests
from benchmarks.harness.fleet import own_fleet, render
from benchmarks.harness.pixels import rgb
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from benchmarks.harness.ssim import ssim
from pocket.captions import paraphrase, vague
from pocket.gallery import follows
from pocket.hints import HINTS
from pocket.paint import judge
from pocket.scenes import Scene, held_out_scenes
from pocket.verify_style import STATISTICS
from pocket.verify_style import measure as style_number
from services.fleet.plan.processes import default_loras
from shared.client import Darkroom, new_job_id
from shared.errors import Misconfigured
from shared.messages import ControlChoice, GenerationRequest
from shared.models.catalogue import Catalogue
from shared.models.loras.sources.directory import calibration

SEED: Final = 3
"""Of the scenes: others than those of the training, of `quality` and of the gallery."""
IN_FLIGHT: Final = 12
"""Jobs on the fleet at a time."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many captions: for the figures, and of them for the plot."""

    captions: int
    plotted: int


FULL: Final = Size(captions=100, plotted=10)
QUICK: Final = Size(captions=3, plotted=1)


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    scenes = held_out_scenes(size.captions, SEED)
    catalogue = Catalogue.load([options.model], default_loras(os.environ))
    loras = await asyncio.to_thread(late_loras, catalogue, scenes, size)
    if options.own.plot is not None:
        steps = catalogue.default.default_steps
        await asyncio.to_thread(options.own.plot.write_text, late_plot(loras, steps), "utf-8")
    async with own_fleet(options.model) as fleet:
        controls = await lagging(fleet.darkroom, scenes)
    return summary(loras, controls) | {"captions": size.captions, "plotted": size.plotted}


# ------------------------------------------------------------------------------------ late LoRAs


def late_loras(catalogue: Catalogue, scenes: Sequence[Scene], size: Size) -> dict[str, Results]:
    """By LoRA that is calibrated and whose style has a number. Blocks."""
    torch.set_num_threads(1)
    steps, rng = catalogue.default.default_steps, random.Random(SEED)
    captions = [paraphrase(scene, rng) for scene in scenes]
    painter = Painter(catalogue)
    found: dict[str, Results] = {}
    plain = painter.draw((), captions)
    for name in catalogue.lora_directory.names():
        calibrated = calibration(catalogue.lora_directory.find(name))
        if calibrated is None or name not in STATISTICS:
            continue
        uses, late = (painter.use(name),), min(calibrated.bound(steps), steps - 1)
        exact = painter.draw(uses, captions)
        drawn = {"exact": exact, "late": painter.draw(uses, captions, late), "without": plain}
        by_step = {0: exact, late: drawn["late"]}
        for k in joins(steps):
            by_step.setdefault(k, painter.draw(uses, captions[: size.plotted], k))
        found[name] = compared(drawn, scenes, partial(style_number, name)) | {
            "late_steps": late,
            "ssim_by_late_steps": {
                str(k): round(similarity(exact[: size.plotted], by_step[k]), 4)
                for k in sorted(by_step)
            },
        }
        say(f"{name}: SSIM {found[name]['ssim']} when it joins after {late} steps")
    if not found:
        raise Misconfigured("DARKROOM_LORAS has no LoRA that is calibrated")
    return found


def joins(steps: int) -> list[int]:
    """Steps after which a LoRA joins, for the plot: the first ones closely; `steps`: never."""
    close = range(min(11, steps))
    return [*close, *range(13, steps - 1, 4), steps]


# ----------------------------------------------------------------------------------- control_lag


async def lagging(darkroom: Darkroom, scenes: Sequence[Scene]) -> dict[str, Results]:
    """By ControlNet."""
    rng = random.Random(SEED)
    found: dict[str, Results] = {}
    plain = [
        GenerationRequest(job_id=new_job_id(), prompt=vague(scene, rng), seed=n)
        for n, scene in enumerate(scenes)
    ]
    without = await _drawn(darkroom, plain, ())
    for name in HINTS:
        exact = [
            msgspec.structs.replace(
                request, controls=(ControlChoice(model=name, image=hint(name, str(scene), n)),)
            )
            for n, (request, scene) in enumerate(zip(plain, scenes, strict=True))
        ]
        lagged = [msgspec.structs.replace(request, control_lag=1) for request in exact]
        drawn = {
            "exact": await _drawn(darkroom, exact, ()),
            "lag": await _drawn(darkroom, lagged, (f"control_lag {name}: image 0",)),
            "without": without,
        }
        found[name] = compared(drawn, scenes, lambda s, i: follows(list(s), i)["places"])
        say(f"{name}: SSIM {found[name]['ssim']} with control_lag")
    return found


async def _drawn(
    darkroom: Darkroom, wanted: Sequence[GenerationRequest], approximations: tuple[str, ...]
) -> list[Picture]:
    """Raises `Misconfigured` if a picture says that it was made by others."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(request: GenerationRequest) -> Picture:
        async with slots:
            rendered = await render(darkroom, requests.again(request))
        if tuple(rendered.done.approximations) != approximations:
            said = rendered.done.approximations
            raise Misconfigured(f"a picture was made by {said}, not by {approximations}")
        return rgb(rendered.data)

    return await asyncio.gather(*(one(request) for request in wanted))


# ---------------------------------------------------------------------------------------- figures


def compared(
    drawn: Mapping[str, Sequence[Picture]],
    scenes: Sequence[Scene],
    number: Callable[[list[Scene], list[Picture]], float],
) -> Results:
    """`drawn`: exact pictures of `scenes`, then approximate ones, then some without an add-on;
    `number`: the add-on's own of such pictures."""
    exact, near, without = drawn.values()
    return {
        "ssim": round(similarity(exact, near), 4),
        "ssim_without": round(similarity(exact, without), 4),
        "accuracy": {k: round(judge(list(scenes), list(v))["all"], 4) for k, v in drawn.items()},
        "number": {k: round(number(list(scenes), list(v)), 4) for k, v in drawn.items()},
    }


def similarity(exact: Sequence[Picture], others: Sequence[Picture]) -> float:
    """The mean SSIM of pairs, as many as there are."""
    return fmean(ssim(one, other) for one, other in zip(exact, others, strict=False))


def summary(loras: Mapping[str, Results], controls: Mapping[str, Results]) -> Results:
    """A drop is what is lost of the accuracy of the exact pictures, and negative where there is a
    gain; `bal`: bounded asynchronous loading."""

    def drop(found: Mapping[str, Any], near: str) -> float:
        lost = (one["accuracy"]["exact"] - one["accuracy"][near] for one in found.values())
        return round(fmean(lost), 4)

    return {
        "bal_ssim": round(fmean(one["ssim"] for one in loras.values()), 4),
        "bal_accuracy_drop": drop(loras, "late"),
        "lag_ssim": round(fmean(one["ssim"] for one in controls.values()), 4),
        "lag_accuracy_drop": drop(controls, "lag"),
        "loras": dict(loras),
        "controls": dict(controls),
    }


def rows(report: Results) -> Cells:
    table: Cells = [
        ["", "SSIM", "without", "accuracy: exact, approximate", "own number: the same, without"]
    ]
    for name, one in (report["loras"] | report["controls"]).items():
        late = f" after {one['late_steps']} steps" if "late_steps" in one else ", control_lag"
        exact, near, without = one["number"].values()
        accuracy = "{}, {}".format(*list(one["accuracy"].values())[:2])
        numbers = f"{exact}, {near}, {without}"
        table.append([name + late, one["ssim"], one["ssim_without"], accuracy, numbers])
    for title, kind in (("LoRAs", "bal"), ("control_lag", "lag")):
        drop = f"drop {report[f'{kind}_accuracy_drop']}"
        table.append([title, report[f"{kind}_ssim"], "", drop])
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also write the plot, as SVG")


if __name__ == "__main__":
    run_program("fidelity", __doc__ or "", measure, rows, add_arguments)
