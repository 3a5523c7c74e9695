"""`python -m benchmarks.overload`"""

import argparse
from typing import Final

from benchmarks import overload
from benchmarks.harness.program import Cells, Options, Results, count_to, run_program
from benchmarks.overload.measure import FULL, QUICK, measure_with

FIGURES: Final = (
    "attainment_over_possible",
    "attainment_after_disturbance",
    "request_batching_over_possible",
    "refused_ms_p95",
    "wasted_share",
    "admitted_in_time",
    "light_p95_ratio",
)


async def measure(options: Options) -> Results:
    plan = QUICK if options.quick else FULL
    return await measure_with(options.model, plan, options.own.rounds, options.own.no_baseline)


def rows(results: Results) -> Cells:
    lines: Cells = [["burst", "requests", "in time", "possible", "refused ms (p95)", "wasted"]]
    for kind, found in results["bursts"].items():
        for one in found:
            wasted = f"{one['wasted']}/{one['steps']}" if one["steps"] else ""
            counts = [one[name] for name in ("requests", "in_time", "possible", "refused_ms")]
            lines.append([kind, *counts, wasted])
    return [*lines, *([name, results[name]] for name in FIGURES)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=count_to(64), help="of all bursts (default 2)")
    parser.add_argument(
        "--no-baseline", action="store_true", help="leave request batching out: quicker"
    )


if __name__ == "__main__":
    run_program("overload", overload.__doc__ or "", measure, rows, add_arguments)
