"""What `python -m benchmarks.serving` takes beside the options of all programs."""

import argparse
from dataclasses import dataclass
from pathlib import Path


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
        type=_seconds,
        default=1500.0,
        help="for the whole run; what does not fit is done for a shorter time, or left out "
        "(default 1500)",
    )
    parser.add_argument("--rounds", type=_count, default=2, help="of all measurements (default 2)")
    parser.add_argument(
        "--denoisers", type=_count, help="of ours (default: as `darkroom up` chooses)"
    )
    parser.add_argument(
        "--no-deadlines", action="store_true", help="requests do not say when they must be done"
    )
    parser.add_argument(
        "--eager-baselines",
        action="store_true",
        help="run the baselines' UNet as diffusers does, without the graph of our denoisers",
    )
    parser.add_argument(
        "--out", type=Path, help="a file for the results so far, written after every measurement"
    )


def settings_of(found: argparse.Namespace) -> Settings:
    return Settings(
        budget=found.budget_seconds,
        rounds=found.rounds,
        denoisers=found.denoisers,
        deadlines=not found.no_deadlines,
        eager=found.eager_baselines,
        out=found.out,
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: seconds above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 1 to 64")
    return value
