"""Which blocks of a step use their caches: the optimal plan against every plan and simpler rules.

Makespans of a step of 12 blocks, over that of the best of all plans, each of which is tried:
`optimal_over_bruteforce` (the worst there was), and mean and worst of the greedy algorithm of
InstGenIE (arXiv 2505.20600), of cached outputs in every block, and of no cache. Instances are a
grid over (C_w, C_wo, L) of blocks that are alike, and random ones, alike and each different.

`planning`: microseconds to plan 57 blocks of two kinds, as FLUX has them, and 57 different ones.
`steps`: the mean step of 20, planned one after another, where each one's loads go on from the one
before: planned greedily, and optimally but with loads that begin anew in each step, over optimally.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from random import Random
from statistics import mean, median
from typing import Final

from benchmarks.harness.numbers import percentile
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from benchmarks.plan.rules import (
    Rule,
    different_blocks,
    equal_blocks,
    flux_blocks,
    greedy,
    least_makespan,
    over_best,
    pair,
)
from shared.policy.block_plan.runs import Block
from shared.policy.block_plan.search import best_plan, timeline

BLOCKS: Final = 12
INSTANCES: Final = 1000
WITH_CACHE: Final = tuple(n / 20 for n in range(1, 20))
"""C_w, against C_wo = 1,"""
LOADS: Final = tuple(n / 20 for n in range(1, 31))
"""and L."""
MICROSECONDS: Final = 1e6
STEPS: Final = 20

Planner = Callable[[Sequence[Block]], object]


async def measure(options: Options) -> Results:
    count = 20 if options.quick else INSTANCES
    lot = Random(0)
    families: dict[str, Iterator[list[Block]]] = {
        "grid": _grid(8 if options.quick else 1),
        "alike": (equal_blocks(BLOCKS, lot) for _ in range(count)),
        "different": (different_blocks(BLOCKS, lot) for _ in range(count)),
    }
    found = {}
    for name, instances in families.items():
        found[name] = [_compared(blocks) for blocks in instances]
        say(f"{name}: {len(found[name])} instances")
    return {
        **summary([one for family in found.values() for one in family]),
        "families": {name: summary(family) for name, family in found.items()},
        "planning": _planning(3 if options.quick else 100),
        "steps": _steps(5 if options.quick else 200),
    }


def _grid(every: int) -> Iterator[list[Block]]:
    for with_cache, load in list(product(WITH_CACHE, LOADS))[::every]:
        yield [pair(with_cache, 1.0, load)] * BLOCKS


def _compared(blocks: Sequence[Block]) -> tuple[float, Rule]:
    best = least_makespan(blocks)
    return best_plan(blocks).makespan / best, over_best(blocks, best)


def summary(found: Sequence[tuple[float, Rule]]) -> Results:
    """Of instances: the optimal plan's makespan over the best, and those of the rules."""
    results: Results = {
        "instances": len(found),
        "optimal_over_bruteforce": round(max(ratio for ratio, _ in found), 9),
    }
    for rule in ("greedy", "cached", "none"):
        ratios = [getattr(rules, rule) for _, rules in found]
        results[f"{rule}_over_bruteforce_mean"] = round(mean(ratios), 4)
        results[f"{rule}_over_bruteforce_worst"] = round(max(ratios), 4)
    return results


def _planning(repetitions: int) -> dict[str, dict[str, float]]:
    lot = Random(1)
    kinds: dict[str, Callable[[], list[Block]]] = {
        "two kinds": lambda: flux_blocks(lot),
        "different": lambda: different_blocks(57, lot),
    }
    for blocks in (flux_blocks(lot), different_blocks(57, Random(0))):
        best_plan(blocks)  # tables of counts and combinations are made once in a process
    return {
        f"{name}, {rule}": _times(plan, [make() for _ in range(repetitions)])
        for name, make in kinds.items()
        for rule, plan in _planners().items()
    }


def _planners() -> dict[str, Planner]:
    return {"optimal": best_plan, "greedy": greedy}


def _times(plan: Planner, instances: Sequence[Sequence[Block]]) -> dict[str, float]:
    times = []
    for blocks in instances:
        began = time.perf_counter()
        plan(blocks)
        times.append((time.perf_counter() - began) * MICROSECONDS)
    return {"p50_us": round(median(times), 1), "p95_us": round(percentile(times, 95), 1)}


def _steps(count: int) -> dict[str, float]:
    """Mean steps over the optimally planned ones', of `count` FLUX-like models."""
    lot = Random(2)
    ratios: dict[str, list[float]] = {"greedy": [], "optimal, loads begin anew": []}
    for _ in range(count):
        blocks = flux_blocks(lot)
        base = _mean_step(blocks, lambda blocks, head: best_plan(blocks, head).choices)
        ratios["greedy"].append(_mean_step(blocks, greedy) / base)
        ratios["optimal, loads begin anew"].append(best_plan(blocks).makespan / base)
    return {name: round(mean(values), 4) for name, values in ratios.items()}


def _mean_step(
    blocks: Sequence[Block], plan: Callable[[Sequence[Block], float], Sequence[int]]
) -> float:
    """Time of a step, of `STEPS` whose loads follow on each other without a pause."""
    head, total = 0.0, 0.0
    for _ in range(STEPS):
        loaded, computed = timeline(blocks, plan(blocks, head), head)
        head, total = computed - loaded, total + computed
    return total / STEPS


def rows(results: Results) -> Cells:
    lines: Cells = [["makespan over the best", "mean", "worst"]]
    lines.append(["optimal", "", results["optimal_over_bruteforce"]])
    for name, found in {"all": results, **results["families"]}.items():
        for rule in ("greedy", "cached", "none"):
            both = (found[f"{rule}_over_bruteforce_{which}"] for which in ("mean", "worst"))
            lines.append([f"{rule}, {name}", *both])
    lines.append(["planning of 57 blocks", "p50 us", "p95 us"])
    lines += [[n, t["p50_us"], t["p95_us"]] for n, t in results["planning"].items()]
    lines.append(["mean step over the optimal one's"])
    return [*lines, *([name, ratio] for name, ratio in results["steps"].items())]


if __name__ == "__main__":
    run_program("plan", __doc__ or "", measure, rows)
