"""What `benchmarks.controlnet` makes of its rounds. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.controlnet.counters import Counters
from benchmarks.harness.numbers import MILLISECONDS
from benchmarks.harness.program import Cells, Results

MOST: Final = 2
"""ControlNets at once."""
COUNTS: Final = {"one": 1, "two": MOST}
SIDES: Final = {
    "fleet": "added_ratio",
    "baseline": "baseline_ratio",
    "baseline_all_cores": "baseline_all_cores_ratio",
}
"""And what the ratio of each is called."""


@dataclass(frozen=True, slots=True)
class Round:
    """Median seconds of a step by each of `SIDES`, and what the fleet asked, by the number of
    ControlNets."""

    steps: Mapping[str, Sequence[float]]
    questions: Sequence[Counters]

    def ratio(self, side: str, count: int) -> float:
        """Of a step with so many ControlNets to one with none."""
        return self.steps[side][count] / self.steps[side][0]


def summary(rounds: Sequence[Round]) -> Results:
    asked = {
        name: sum((r.questions[count] for r in rounds), Counters()).report()
        for name, count in COUNTS.items()
    }
    ratios = {
        f"{ratio}_{name}": round(median(r.ratio(side, count) for r in rounds), 3)
        for name, count in COUNTS.items()
        for side, ratio in SIDES.items()
    }
    times = {side: zip(*(r.steps[side] for r in rounds), strict=True) for side in SIDES}
    return ratios | {
        "hop_microseconds": asked["one"]["hop_microseconds"],
        "hidden_share": asked["one"]["hidden_share"],
        "step_ms": {
            side: [round(MILLISECONDS * median(each), 2) for each in columns]
            for side, columns in times.items()
        },
        "questions": asked,
        "rounds": len(rounds),
    }


def rows(results: Results) -> Cells:
    lines: Cells = [["", "large: 0", "1", "2", "pocket: 0", "1", "2"]]
    parts = (results, results["pocket"])
    for side in SIDES:
        times = [f"{ms:.1f}" for part in parts for ms in part["step_ms"][side]]
        lines.append([f"{side}, ms a step", *times])
    for ratio in SIDES.values():
        pairs = [[part[f"{ratio}_{name}"] for name in COUNTS] for part in parts]
        lines.append([ratio, *(value for pair in pairs for value in ("", *pair))])
    for field in results["questions"]["one"]:
        pairs = [[part["questions"][name][field] for name in COUNTS] for part in parts]
        lines.append([field, *(value for pair in pairs for value in ("", *pair))])
    return [*lines, ["max_abs_diff", "", "", "", results["max_abs_diff"]]]
