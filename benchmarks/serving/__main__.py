"""`python -m benchmarks.serving`"""

from collections.abc import Callable
from typing import Any, Final

from benchmarks import serving
from benchmarks.harness.program import Cells, Results, run_program
from benchmarks.serving.measure import measure
from benchmarks.serving.settings import add_arguments

FIGURES: Final = (
    "rate_ratio",
    "p95_ratio",
    "burst_attainment",
    "burst_recovery_seconds",
    "cpu_overhead",
)


def rows(results: Results) -> Cells:
    lines: Cells = [
        [
            "",
            "requests/s",
            "p95 s at own 70%",
            "p95 s at our 70%",
            "burst",
            "recovery s",
            "CPU s",
        ]
    ]
    for name, found in results["systems"].items():
        visits = found["rounds"]
        lines.append(
            [
                name,
                _rate(found),
                _each(visits, "own", lambda v: v["p95"]),
                _each(visits, "common", lambda v: v["p95"]),
                _each(visits, "burst", lambda v: v["met"] / max(1, v["requests"])),
                _each(visits, "burst", lambda v: v["recovery"]["seconds"]),
                _each(visits, "saturation", lambda v: v["cpu_per_image"]),
            ]
        )
    for name in FIGURES:
        lines.append([name, results[name]])
    return lines


def _rate(found: dict[str, Any]) -> str:
    if "rate" not in found:
        return ""
    low, high = found["rate_share_interval"]
    return f"{found['rate']:.3f} ({low:.0%} to {high:.0%} in time)"


def _each(
    visits: list[dict[str, Any]], kind: str, figure: Callable[[dict[str, Any]], float]
) -> str:
    """One figure per round in which it was measured."""
    return ", ".join(f"{figure(visit[kind]):.3g}" for visit in visits if visit[kind] is not None)


if __name__ == "__main__":
    run_program("serving", serving.__doc__ or "", measure, rows, add_arguments)
