"""Whether our images are those of diffusers' StableDiffusionXLPipeline: same weights, same noise.

Every prompt is drawn three times with the same settings and seed: by the pipeline, by a fleet that
has nothing else to do, and by that fleet while 7 other jobs, with other prompts, samplers, steps
and guidance, run in the same batch from before its first step until after its last. The fleet
has one denoiser, so that they do. Differences are in steps of 1/255; a pixel counts as off by the
worst of its channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final

from benchmarks.baselines.reference import Baseline
from benchmarks.harness import requests
from benchmarks.harness.filler_jobs import filler_jobs
from benchmarks.harness.fleet import Rendered, own_fleet, render
from benchmarks.harness.pixels import Difference, difference, total
from benchmarks.harness.program import Cells, Options, Results, cores, run_program, say
from shared.client import Darkroom
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Size:
    prompts: int
    companions: int
    most_steps: int


FULL: Final = Size(prompts=20, companions=7, most_steps=30)
QUICK: Final = Size(prompts=2, companions=3, most_steps=6)
LONGER: Final = 40
"""Steps that a companion has more than the job it keeps company; it is cancelled afterwards."""


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt's two comparisons, and how many rows its steps had when it was not alone."""

    spec: JobSpec
    alone: Difference
    shared: Difference
    rows: tuple[int, ...]


async def measure(options: Options) -> Results:
    catalogue = Catalogue.load([options.model])
    size = QUICK if options.quick else FULL
    wanted = requests.mixed(size.prompts, catalogue.default, most_steps=size.most_steps)
    others = requests.mixed(size.companions, catalogue.default, seed=1)
    cases = []
    async with (
        own_fleet(options.model, denoisers=1) as fleet,
        Baseline(options.model, cores()) as baseline,
    ):
        for number, request in enumerate(wanted):
            spec = validate(request, catalogue)
            expected = await baseline.draw(spec)
            alone = await render(fleet.darkroom, request)
            shared = await _among_others(fleet.darkroom, request, others)
            case = Case(
                spec,
                difference(alone.data, expected),
                difference(shared.data, expected),
                tuple(step.rows for step in shared.steps),
            )
            cases.append(case)
            say(f"{number + 1}/{size.prompts} {_line(case)}")
    return summary(cases)


async def _among_others(
    darkroom: Darkroom, request: GenerationRequest, others: Sequence[GenerationRequest]
) -> Rendered:
    steps = (request.steps or 0) + LONGER
    longer = [requests.again(other, steps + number) for number, other in enumerate(others)]
    async with filler_jobs(darkroom, longer, after=1):
        return await render(darkroom, requests.again(request))


def summary(cases: Sequence[Case]) -> Results:
    alone, shared = total([c.alone for c in cases]), total([c.shared for c in cases])
    rows = [count for case in cases for count in case.rows]
    return {
        "max_abs_diff_alone": alone.max_abs_diff,
        "max_abs_diff_shared": shared.max_abs_diff,
        "prompts": len(cases),
        "samplers": sorted({case.spec.sampler for case in cases}),
        "steps": [min(c.spec.steps for c in cases), max(c.spec.steps for c in cases)],
        "guidance": [min(c.spec.guidance for c in cases), max(c.spec.guidance for c in cases)],
        "alone": alone.counts(),
        "shared": shared.counts(),
        "mean_rows_shared": round(mean(map(float, rows)), 2),
        "fewest_rows_shared": min(rows),
    }


def _line(case: Case) -> str:
    spec = case.spec
    return (
        f"{spec.sampler}, {spec.steps} steps, guidance {spec.guidance:g}: off by "
        f"{case.alone.max_abs_diff} alone, {case.shared.max_abs_diff} among {max(case.rows)} rows"
    )


def rows(results: Results) -> Cells:
    titles = ["", "max_abs_diff", "pixels", "off by 1", "off by 2", "off by more", "rows per step"]
    return [
        titles,
        *(
            [name, results[f"max_abs_diff_{name}"], *results[name].values(), mean_rows]
            for name, mean_rows in (("alone", 1), ("shared", results["mean_rows_shared"]))
        ),
    ]


if __name__ == "__main__":
    run_program("exactness", __doc__ or "", measure, rows)
