"""How long a new job waits for a running batch to take it in, and whether the company shows.

8 long jobs are mid-way when a short one arrives; when it has ended the next arrives, at some other
moment of a step. `p95_steps_to_join` runs from the moment the record made the job's denoise node
ready, which is just before the node is put into the denoiser's queue, until the node's first step
starts, in units of the batch's median step. So it holds the queue, the pull, the building of the
row, and the wait for the running step's end, which alone is half a step on average and one at most.
`p95_steps_from_submission` starts earlier, at the client's submission: planning and the encoding
of the prompt are in it.

When a step starts is read off the long jobs' progress: steps follow each other without a pause, so
a step starts when the one before it ends.

There is one denoiser, for all jobs have to be in one batch.

`max_abs_diff`: each newcomer's image against the same request alone on the same fleet, in 1/255.
"""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from benchmarks.harness import requests
from benchmarks.harness.filler_jobs import Companion, filler_jobs
from benchmarks.harness.fleet import Rendered, own_fleet, render
from benchmarks.harness.numbers import percentile
from benchmarks.harness.pixels import Difference, difference, total
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from shared.client import Darkroom
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue

MIDWAY: Final = 10
"""Steps that all companions have done before the first arrival."""
LONG: Final = 600
"""Steps of a companion, more than a group takes; it is cancelled when its group is done."""
PAUSE: Final = 0.2
"""Seconds; arrivals are up to this much apart, by lot, so that they meet a step anywhere."""


@dataclass(frozen=True, slots=True)
class Size:
    """`groups` of `arrivals` one after another; every group has `companions` of its own, so that
    none of them ends too early."""

    groups: int
    arrivals: int
    companions: int
    most_steps: int


FULL: Final = Size(groups=3, arrivals=8, companions=8, most_steps=30)
QUICK: Final = Size(groups=1, arrivals=3, companions=3, most_steps=6)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Times are Unix seconds on one clock. `ends`: when each step of the batch ended."""

    submitted_at: float
    ready_at: float
    first_step_ended_at: float
    ends: tuple[float, ...]
    rows: tuple[int, ...]
    """In each of the newcomer's steps."""

    @property
    def joined_at(self) -> float:
        return start_of_step(self.first_step_ended_at, self.ends)


def start_of_step(ended_at: float, ends: Sequence[float]) -> float:
    """When the step that ended at about `ended_at` started: the end before it in `ends`, sorted."""
    after = bisect_left(ends, ended_at)
    nearest = min(
        range(max(0, after - 1), min(after + 1, len(ends))),
        key=lambda place: abs(ends[place] - ended_at),
    )
    if nearest == 0:
        raise ValueError("the batch took no step before")
    return ends[nearest - 1]


async def measure(options: Options) -> Results:
    card = Catalogue.load([options.model]).default
    size = QUICK if options.quick else FULL
    wanted = requests.mixed(size.groups * size.arrivals, card, 2, size.most_steps)
    found: list[Arrival] = []
    differences: list[Difference] = []
    async with own_fleet(options.model, denoisers=1) as fleet:
        alone = [await render(fleet.darkroom, request) for request in wanted]
        for group in range(size.groups):
            part = slice(group * size.arrivals, (group + 1) * size.arrivals)
            others = requests.mixed(size.companions, card, 10 + group)
            together = await _group(fleet.darkroom, wanted[part], others, random.Random(group))
            found += [arrival for arrival, _ in together]
            pairs = zip(together, alone[part], strict=True)
            differences += [difference(ours.data, lone.data) for (_, ours), lone in pairs]
            say(f"group {group + 1}/{size.groups}: {len(together)} arrivals")
    return summary(found, total(differences))


async def _group(
    darkroom: Darkroom,
    wanted: Sequence[GenerationRequest],
    others: Sequence[GenerationRequest],
    rng: random.Random,
) -> list[tuple[Arrival, Rendered]]:
    long = [requests.again(other, LONG) for other in others]
    found = []
    async with filler_jobs(darkroom, long, MIDWAY) as companions:
        for request in wanted:
            await asyncio.sleep(rng.uniform(0.0, PAUSE))
            request = requests.again(request)
            rendered = await render(darkroom, request)
            found.append((await _arrival(darkroom, rendered, companions[0]), rendered))
    return found


async def _arrival(darkroom: Darkroom, rendered: Rendered, companion: Companion) -> Arrival:
    record = await darkroom.job(rendered.done.job_id)
    return Arrival(
        submitted_at=rendered.submitted_at,
        ready_at=record.nodes["denoise-0"].ready_at,
        first_step_ended_at=rendered.steps[0].at,
        ends=tuple(step.at for step in companion.steps),
        rows=tuple(step.rows for step in rendered.steps),
    )


def summary(arrivals: Sequence[Arrival], worst: Difference) -> Results:
    step = median(after - before for a in arrivals for before, after in pairwise(a.ends))
    from_ready = [(a.joined_at - a.ready_at) / step for a in arrivals]
    from_submission = [(a.joined_at - a.submitted_at) / step for a in arrivals]
    return {
        "p95_steps_to_join": round(percentile(from_ready, 95), 3),
        "max_abs_diff": worst.max_abs_diff,
        "p50_steps_to_join": round(median(from_ready), 3),
        "worst_steps_to_join": round(max(from_ready), 3),
        "p50_steps_from_submission": round(median(from_submission), 3),
        "p95_steps_from_submission": round(percentile(from_submission, 95), 3),
        "median_step_ms": round(step * 1000, 2),
        "arrivals": len(arrivals),
        "fewest_rows": min(min(a.rows) for a in arrivals),
        "differences": worst.counts(),
    }


def rows(results: Results) -> Cells:
    shown = [
        "p50_steps_to_join",
        "p95_steps_to_join",
        "worst_steps_to_join",
        "p50_steps_from_submission",
        "p95_steps_from_submission",
        "median_step_ms",
        "fewest_rows",
        "arrivals",
        "max_abs_diff",
    ]
    return [["", "value"], *([name.replace("_", " "), results[name]] for name in shown)]


if __name__ == "__main__":
    run_program("joining", __doc__ or "", measure, rows)
