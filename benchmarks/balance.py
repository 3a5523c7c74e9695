"""How evenly edits of very different cost load several denoisers: a simulation of the real policy.

8 denoisers, Poisson arrivals, masks as production has them (`loadgen/workload/masks.py`).
`imbalance` is the predicted work that the busiest denoiser was given, over the mean, less 1: ours,
where who has the fewest predicted seconds in hand pulls first; the same with the number of rows
told instead; round robin; and least requests. The worst of all mixes and rates is given. Time is
simulated, and the same in every run; nothing is measured.
"""

from collections.abc import Callable, Sequence
from random import Random
from statistics import mean
from typing import Final

from benchmarks.harness.numbers import percentile
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from loadgen.simulator.denoisers import (
    COST,
    STEPS,
    LeastRequests,
    Outcome,
    Pulling,
    RoundRobin,
    added_seconds,
)
from loadgen.simulator.edit_mix import MIXES, Edit, arrivals
from shared.policy.cost_model import CostModel
from shared.policy.reported_load import level, seconds_in_hand
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits

DENOISERS: Final = 8
EDITS: Final = 2000
SHARES: Final = (0.4, 0.8)
"""Of the rate at which all denoisers are always full."""
LIMITS: Final = Limits(max_rows=8, max_admitted=8, max_waiting=EDITS)

Policy = Callable[[Sequence[Edit]], Outcome]


def by_seconds(rows: Sequence[RowView], cost: CostModel) -> int:
    return level(seconds_in_hand(rows, cost), len(rows))


def by_number(rows: Sequence[RowView], cost: CostModel) -> int:
    return min(9, len(rows))


POLICIES: Final[dict[str, Policy]] = {
    "ours": lambda edits: Pulling(edits, DENOISERS, LIMITS, by_seconds).run(),
    "ours by number": lambda edits: Pulling(edits, DENOISERS, LIMITS, by_number).run(),
    "least requests": lambda edits: LeastRequests(edits, DENOISERS, LIMITS).run(),
    "round robin": lambda edits: RoundRobin(edits, DENOISERS, LIMITS).run(),
}


async def measure(options: Options) -> Results:
    count = 100 if options.quick else EDITS
    cases: list[Results] = []
    for mix, draw in MIXES.items():
        lot = Random(7)
        masks = [draw(lot) for _ in range(count)]
        for share in SHARES[:1] if options.quick else SHARES:
            edits = arrivals(masks, share * full_rate(masks), lot)
            found = {name: summary(policy(edits)) for name, policy in POLICIES.items()}
            cases.append({"mix": mix, "share": share, "policies": found})
        say(f"{mix}: {len(masks)} edits")
    return {"imbalance": worst(cases), "denoisers": DENOISERS, "edits": count, "cases": cases}


def full_rate(masks: Sequence[float]) -> float:
    """Edits a second that full batches of all denoisers finish."""
    rows = LIMITS.max_rows
    step = COST.coefficients[0] + rows * mean(added_seconds(Edit(0.0, m)) for m in masks) / STEPS
    return DENOISERS * rows / (STEPS * step)


def imbalance(values: Sequence[float]) -> float:
    """The largest over the mean, less 1."""
    return max(values) / mean(values) - 1.0


def summary(outcome: Outcome) -> dict[str, float]:
    return {
        "imbalance": round(imbalance(outcome.work), 4),
        "busy_imbalance": round(imbalance(outcome.busy), 4),
        "mean_seconds": round(mean(outcome.latencies), 3),
        "p95_seconds": round(percentile(outcome.latencies, 95), 3),
    }


def worst(cases: Sequence[Results]) -> dict[str, float]:
    return {name: max(case["policies"][name]["imbalance"] for case in cases) for name in POLICIES}


def rows(results: Results) -> Cells:
    lines: Cells = [["", "imbalance", "of busy time", "mean s", "p95 s"]]
    lines += [[f"worst: {name}", number] for name, number in results["imbalance"].items()]
    for case in results["cases"]:
        for name, found in case["policies"].items():
            lines.append([f"{case['mix']}, {case['share']}: {name}", *found.values()])
    return lines


if __name__ == "__main__":
    run_program("balance", __doc__ or "", measure, rows)
