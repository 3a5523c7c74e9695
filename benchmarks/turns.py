"""Rows that share a step only where that saves something, against rows that share every step.

A simulation with the real `schedule_step` of one denoiser, to which pictures and edits come as a
Poisson process: mean seconds until one is finished, over those if all rows share each step. By how
much of a picture's step is saved for each further one that shares it (what a step pays once, over
what it takes with one picture), and by how busy the denoiser would be with one at a time; 1.1: more
come than it can draw without company.

`mean_ratio` and `worst_ratio` are over all cases. `in order` is what a queue before a pipeline
does: one after another, as they come.
"""

from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean
from typing import Final

import msgspec

from benchmarks.harness.program import Cells, Options, Results, run_program, say
from loadgen.simulator.denoisers import STEPS, RoundRobin, cost_model, row_work
from loadgen.simulator.edit_mix import Edit, arrivals, mixed
from loadgen.workload.masks import MOST
from shared.policy.cost_model import CostModel
from shared.policy.step_scheduler import Limits

MIXES: Final[dict[str, Callable[[Random], float]]] = {
    "pictures": lambda lot: MOST,
    "edits": mixed,
}
SAVED: Final = (0.02, 0.1, 0.2, 0.3, 0.5, 0.8)
BUSY: Final = (0.3, 0.6, 0.9, 1.1)
STEP_SECONDS: Final = 0.25
COUNT: Final = 150
SEEDS: Final = (0, 1, 2)
LIMITS: Final = Limits(max_waiting=len(SEEDS) * COUNT, max_step_seconds=60.0)


async def measure(options: Options) -> Results:
    count, seeds = (20, SEEDS[:1]) if options.quick else (COUNT, SEEDS)
    cases: list[Results] = []
    ratios = []
    for mix, draw in MIXES.items():
        for saved in SAVED:
            cost = cost_model(STEP_SECONDS, saved)
            for busy in BUSY:
                each = [_means(draw, cost, busy, count, seed) for seed in seeds]
                found = {name: fmean(one[name] for one in each) for name in each[0]}
                compared = _ratios(found)
                ratios.append(compared["ours"])
                cases.append({"mix": mix, "saved": saved, "busy": busy, **compared})
            say(f"{mix}, {saved} saved")
    return {
        "mean_ratio": round(fmean(ratios), 3),
        "worst_ratio": max(ratios),
        "best_ratio": min(ratios),
        "cases": cases,
    }


def _means(
    draw: Callable[[Random], float], cost: CostModel, busy: float, count: int, seed: int
) -> dict[str, float]:
    """Mean seconds until a picture is finished."""
    lot = Random(seed)
    masks = [draw(lot) for _ in range(count)]
    alone = [STEPS * cost.predict(row_work(Edit(0.0, mask))) for mask in masks]
    edits = arrivals(masks, busy / fmean(alone), lot)
    unknown = msgspec.structs.replace(cost, cells={})  # for as long as it is, all share each step
    return {
        "ours": fmean(RoundRobin(edits, 1, LIMITS, cost).run().latencies),
        "together": fmean(RoundRobin(edits, 1, LIMITS, unknown).run().latencies),
        "in order": fmean(_in_order(edits, alone)),
    }


def _in_order(edits: Sequence[Edit], seconds: Sequence[float]) -> list[float]:
    free, latencies = 0.0, []
    for edit, duration in zip(edits, seconds, strict=True):
        free = max(free, edit.at) + duration
        latencies.append(free - edit.at)
    return latencies


def _ratios(found: dict[str, float]) -> dict[str, float]:
    together = found["together"]
    return {
        "together_seconds": round(together, 2),
        "ours": round(found["ours"] / together, 3),
        "in_order": round(found["in order"] / together, 3),
    }


def rows(results: Results) -> Cells:
    names = ("mix", "saved", "busy", "together_seconds", "ours", "in_order")
    lines = [[case[name] for name in names] for case in results["cases"]]
    return [["", "saved", "busy", "together, s", "ours", "in order"], *lines]


if __name__ == "__main__":
    run_program("turns", __doc__ or "", measure, rows)
