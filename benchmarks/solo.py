"""What the way through the services costs one image that has them to itself.

One job at a time, from its submission over NATS until its PNG is in the client's hands, against
the same image from diffusers' pipeline in this process, PNG included, in whichever memory format
is faster; its UNet runs as the graph that our denoisers run, unless `--eager-baseline` wants it as
it comes. The fleet has the layout of `darkroom up`. Both are warmed up and take turns image by
image, in changing order; each may use all cores. `ratio` is that of the median seconds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.baselines.reference import TRIALS, Baseline, add_eager_baseline
from benchmarks.harness import requests
from benchmarks.harness.fleet import own_fleet, render
from benchmarks.harness.numbers import spread
from benchmarks.harness.program import Cells, Options, Results, cores, run_program, say
from shared.client import Darkroom
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue

IMAGES: Final = 30
WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds for one image on both sides, and how ours were spent, by kind of node."""

    ours: float
    baseline: float
    stages: dict[str, float]


async def measure(options: Options) -> Results:
    catalogue = Catalogue.load([options.model])
    count, trials, steps = (3, 1, 4) if options.quick else (IMAGES, TRIALS, None)
    wanted = requests.plain(WARM_UP + count, steps)
    turns = []
    async with (
        own_fleet(options.model) as fleet,
        Baseline(options.model, cores(), graph=not options.own.eager_baseline) as baseline,
    ):
        layouts = await baseline.choose_layout(validate(wanted[0], catalogue), trials)
        for number, request in enumerate(wanted):
            spec = validate(request, catalogue)
            turn = await _turn(fleet.darkroom, baseline, request, spec, ours_first=number % 2 == 0)
            if number >= WARM_UP:
                turns.append(turn)
        say(f"{count} images by each side")
    return summary(turns) | {
        "steps": validate(wanted[0], catalogue).steps,
        "eager_baseline": options.own.eager_baseline,
        "baseline_layout": baseline.layout,
        "baseline_seconds_by_layout": {n: round(s, 4) for n, s in layouts.items()},
    }


async def _turn(
    darkroom: Darkroom,
    baseline: Baseline,
    request: GenerationRequest,
    spec: JobSpec,
    *,
    ours_first: bool,
) -> Turn:
    if ours_first:
        rendered = await render(darkroom, request)
        seconds = await _timed(baseline, spec)
    else:
        seconds = await _timed(baseline, spec)
        rendered = await render(darkroom, request)
    stages = {f"{s.kind} waits": s.waiting for s in rendered.done.stages}
    stages |= {f"{s.kind} runs": s.running for s in rendered.done.stages}
    return Turn(rendered.seconds, seconds, stages)


async def _timed(baseline: Baseline, spec: JobSpec) -> float:
    began = time.perf_counter()
    await baseline.draw(spec)
    return time.perf_counter() - began


def summary(turns: Sequence[Turn]) -> Results:
    ours, baseline = [t.ours for t in turns], [t.baseline for t in turns]
    return {
        "ratio": round(median(ours) / median(baseline), 3),
        "images": len(turns),
        "ours": spread(ours),
        "baseline": spread(baseline),
        "stages": {name: spread([t.stages[name] for t in turns]) for name in turns[0].stages},
    }


def rows(results: Results) -> Cells:
    parts = {"fleet": results["ours"], "pipeline": results["baseline"], **results["stages"]}
    lines = [[name, *(f"{ms:.1f}" for ms in part.values())] for name, part in parts.items()]
    return [["", "p50 ms", "p95 ms"], *lines, ["ratio", results["ratio"]]]


if __name__ == "__main__":
    run_program("solo", __doc__ or "", measure, rows, add_eager_baseline)
