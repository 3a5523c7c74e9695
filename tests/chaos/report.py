"""What a case found, in numbers, as a table, and as JSON that later runs add to."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.table import Table

MOST_SHOWN: Final = 8
"""Violations that a report quotes; all are counted."""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case. Everything but `runs`, `jobs`, `figures` and `seconds` has to be 0 or empty."""

    case: str
    long: bool
    runs: int
    """Kills, crashes, restarts: whatever the case does over and over."""
    wanted_runs: int
    jobs: int
    """Acknowledged ones."""
    lost: int
    failed: int
    """Jobs that ended otherwise than they should have."""
    second_results: int
    violations: list[str]
    """Of the auditor, other than those above."""
    slots_left: int
    files_left: int
    processes_left: int
    differing: int
    """Images that are not as without harm."""
    remarks: list[str]
    """What else went wrong."""
    figures: dict[str, float | int | str]
    seconds: float

    @property
    def passed(self) -> bool:
        return not (
            self.lost
            or self.failed
            or self.second_results
            or self.violations
            or self.slots_left
            or self.files_left
            or self.processes_left
            or self.differing
            or self.remarks
            or self.runs < self.wanted_runs
        )

    @property
    def verdict(self) -> str:
        return "pass" if self.passed else "FAIL"

    def troubles(self) -> list[str]:
        """Lines that say what is wrong."""
        counts = {
            "lost": self.lost,
            "ended otherwise than they should": self.failed,
            "second results": self.second_results,
            "arenas with slots left": self.slots_left,
            "files left": self.files_left,
            "processes left": self.processes_left,
            "images differing": self.differing,
        }
        lines = [f"{count} {name}" for name, count in counts.items() if count]
        if self.runs < self.wanted_runs:
            lines.append(f"{self.runs} of {self.wanted_runs} runs")
        return [*lines, *self.remarks, *self.violations[:MOST_SHOWN]]


def table(results: Sequence[CaseResult]) -> Table:
    made = Table(title="chaos", title_justify="left")
    for heading in (
        "case", "runs", "jobs", "lost", "second results", "slots, files left", "images differing",
        "further figures", "verdict",
    ):  # fmt: skip
        made.add_column(
            heading, justify="left" if heading in ("case", "further figures") else "right"
        )
    for result in results:
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in result.figures.items())
        made.add_row(
            result.case if result.long else f"{result.case} (short)",
            str(result.runs),
            str(result.jobs),
            str(result.lost),
            str(result.second_results + len(result.violations)),
            f"{result.slots_left}, {result.files_left}",
            str(result.differing),
            figures,
            result.verdict,
        )
    return made


def _shown(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def merge(file: Path, results: Sequence[CaseResult]) -> list[CaseResult]:
    """Add `results` to those in `file`; a case that was run again replaces its earlier result."""
    earlier = msgspec.json.decode(file.read_bytes(), type=list[CaseResult]) if file.exists() else []
    kept = {(result.case, result.long): result for result in (*earlier, *results)}
    merged = list(kept.values())
    encoded = [{**msgspec.to_builtins(result), "verdict": result.verdict} for result in merged]
    file.write_text(json.dumps(encoded, indent=2) + "\n")
    return merged
