"""Images per second of a fleet with many jobs in flight, against one pipeline call after another.

48 images of 25 steps. The fleet: from the first submission over NATS to the last PNG in the
client's hands, 16 jobs in flight, the next submitted when one ends. The fleet has the layout of
`darkroom up`. The baseline: diffusers' pipeline in this process, with all cores, PNG included, in
whichever memory format is faster; its UNet runs as the graph that our denoisers run, unless
`--eager-baseline` wants it as it comes.
Both sides are warmed up, take turns for whole rounds, in changing order, and are idle while the
other is measured. `ratio` is the median over the rounds of the ratio within a round.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.baselines.pipeline import Layout
from benchmarks.baselines.reference import TRIALS, Baseline, add_eager_baseline
from benchmarks.harness import requests
from benchmarks.harness.fleet import own_fleet, render
from benchmarks.harness.numbers import mean_rows
from benchmarks.harness.program import Cells, Options, Results, cores, run_program, say
from shared.client import Darkroom
from shared.jobs.validate import validate
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Size:
    images: int
    in_flight: int
    steps: int
    rounds: int
    trials: int = TRIALS


FULL: Final = Size(images=48, in_flight=16, steps=25, rounds=3)
QUICK: Final = Size(images=6, in_flight=3, steps=4, rounds=1, trials=1)


@dataclass(frozen=True, slots=True)
class Round:
    """Images per second of both sides, and the rows of every step of every job of ours."""

    ours: float
    baseline: float
    rows: tuple[int, ...]

    @property
    def ratio(self) -> float:
        return self.ours / self.baseline


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    rounds = []
    async with (
        own_fleet(options.model) as fleet,
        Baseline(options.model, cores(), graph=not options.own.eager_baseline) as baseline,
    ):
        pair = _Pair(options.model, fleet.darkroom, baseline, size)
        layouts = await pair.warm_up()
        for number in range(size.rounds):
            rounds.append(await pair.round(ours_first=number % 2 == 0))
            say(f"round {number + 1}/{size.rounds}: {rounds[-1].ratio:.2f} times the baseline")
    return summary(rounds, size) | {
        "eager_baseline": options.own.eager_baseline,
        "baseline_layout": baseline.layout,
        "baseline_seconds_by_layout": {n: round(s, 4) for n, s in layouts.items()},
    }


class _Pair:
    """Both sides, with the same requests."""

    def __init__(self, model: str, darkroom: Darkroom, baseline: Baseline, size: Size) -> None:
        self._catalogue = Catalogue.load([model])
        self._darkroom = darkroom
        self._baseline = baseline
        self._size = size
        self._requests = requests.plain(size.images, size.steps)

    async def warm_up(self) -> dict[Layout, float]:
        """As many rows at once as there will be, and the baseline's better memory format."""
        await through_fleet(
            self._darkroom, self._requests[: self._size.in_flight], self._size.in_flight
        )
        spec = validate(self._requests[0], self._catalogue)
        return await self._baseline.choose_layout(spec, self._size.trials)

    async def round(self, *, ours_first: bool) -> Round:
        if ours_first:
            ours, rows = await self._ours()
            theirs = await self._theirs()
        else:
            theirs = await self._theirs()
            ours, rows = await self._ours()
        return Round(self._size.images / ours, self._size.images / theirs, rows)

    async def _ours(self) -> tuple[float, tuple[int, ...]]:
        return await through_fleet(self._darkroom, self._requests, self._size.in_flight)

    async def _theirs(self) -> float:
        began = time.perf_counter()
        for request in self._requests:
            await self._baseline.draw(validate(request, self._catalogue))
        return time.perf_counter() - began


async def through_fleet(
    darkroom: Darkroom, wanted: Sequence[GenerationRequest], in_flight: int
) -> tuple[float, tuple[int, ...]]:
    """Seconds until the last image is there, and the rows of every step of every job."""
    left = iter(wanted)
    rows: list[int] = []

    async def submit_one_after_another(left: Iterator[GenerationRequest]) -> None:
        for request in left:
            rendered = await render(darkroom, requests.again(request))
            rows.extend(step.rows for step in rendered.steps)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(submit_one_after_another(left))
    return time.perf_counter() - began, tuple(rows)


def summary(rounds: Sequence[Round], size: Size) -> Results:
    return {
        "ratio": round(median(r.ratio for r in rounds), 3),
        "images_per_second": round(median(r.ours for r in rounds), 3),
        "baseline_images_per_second": round(median(r.baseline for r in rounds), 3),
        "mean_rows_per_step": round(mean_rows([n for r in rounds for n in r.rows]), 2),
        "ratios": [round(r.ratio, 3) for r in rounds],
        "images": size.images,
        "in_flight": size.in_flight,
        "steps": size.steps,
    }


def rows(results: Results) -> Cells:
    return [
        ["", "images per second", "rows per step"],
        ["fleet", results["images_per_second"], results["mean_rows_per_step"]],
        ["pipeline", results["baseline_images_per_second"], 1],
        ["ratio", results["ratio"]],
    ]


if __name__ == "__main__":
    run_program("throughput", __doc__ or "", measure, rows, add_eager_baseline)
