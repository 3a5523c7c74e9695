"""What `python -m benchmarks.serving` takes beside the options of all programs."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks.harness.program import count_to, positive_seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """`denoisers` of ours; None: as `darkroom up` chooses. `deadlines`: requests carry theirs.
    `eager`: the baselines' UNet runs as diffusers does, not as ours. `budget`: seconds for the
    whole run."""

    budget: float
    rounds: int
    denoisers: int | None
    deadlines: bool
    eager: bool
    out: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget-seconds",
        dest="budget",
        metavar="BUDGET_SECONDS",
        type=positive_seconds,
        default=1500.0,
        help="for the whole run; what does not fit is done for a shorter time, or left out "
        "(default 1500)",
    )
    parser.add_argument(
        "--rounds", type=count_to(64), default=2, help="of all measurements (default 2)"
    )
    parser.add_argument(
        "--denoisers", type=count_to(64), help="of ours (default: as `darkroom up` chooses)"
    )
    parser.add_argument(
        "--no-deadlines",
        dest="deadlines",
        action="store_false",
        help="requests do not say when they must be done",
    )
    parser.add_argument(
        "--eager-baselines",
        dest="eager",
        action="store_true",
        help="run the baselines' UNet as diffusers does, without the graph of our denoisers",
    )
    parser.add_argument(
        "--out", type=Path, help="a file for the results so far, written after every measurement"
    )


def settings_of(found: argparse.Namespace) -> Settings:
    return Settings(**{field.name: getattr(found, field.name) for field in fields(Settings)})
