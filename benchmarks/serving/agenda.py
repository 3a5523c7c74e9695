"""What is measured in which order, and how long it may take when time is short. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.serving.plan import Plan
from benchmarks.serving.systems import OURS

Kind = Literal["search", "own", "common", "burst", "saturation"]
IN_WORDS: Final[dict[Kind, str]] = {
    "search": "highest rate",
    "own": "load at 70% of its own highest rate",
    "common": "load at 70% of our highest rate",
    "burst": "burst",
    "saturation": "saturation",
}
LEAST_SHARE: Final = 0.4
"""Of a plan's durations: a round that would have less is left out."""
QUIET_SECONDS: Final = 4.0
"""About what the queue takes to be gone, and to see that it is."""
LOADING_SECONDS: Final = 10.0
"""About what the bare network's processes take to start."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One measurement of one system; `round` counts from 0."""

    round: int
    system: str
    kind: Kind


def agenda(names: Sequence[str], rounds: int) -> list[Phase]:
    """In each round one system after another within each measurement, for drifts of the machine to
    hit all; in every other round in reverse order. Rates come first: the rest depends on ours."""
    phases = []
    for number in range(rounds):
        order = names if number % 2 == 0 else names[::-1]
        phases += [Phase(number, name, "search") for name in order]
        for name in order:
            phases.append(Phase(number, name, "own"))
            if name != OURS:
                phases.append(Phase(number, name, "common"))
            phases += [Phase(number, name, "burst"), Phase(number, name, "saturation")]
    return phases


def share_that_fits(phases: Sequence[Phase], plan: Plan, seconds: float) -> float:
    """The share of its durations, at most 1, with which all of `phases` take `seconds`. Negative
    if what cannot be shorter takes longer than that."""
    fixed = sum(_fixed(phase, plan) for phase in phases)
    flexible = sum(_flexible(phase, plan) for phase in phases)
    return min(1.0, (seconds - fixed) / flexible) if phases else 1.0


def rounds_that_fit(names: Sequence[str], rounds: int, plan: Plan, seconds: float) -> int:
    """At least one."""
    fitting = [
        count
        for count in range(1, rounds + 1)
        if share_that_fits(agenda(names, count), plan, seconds) >= LEAST_SHARE
    ]
    return max(fitting, default=1)


def _fixed(phase: Phase, plan: Plan) -> float:
    match phase.kind:
        case "burst":
            return QUIET_SECONDS + plan.burst_seconds
        case "saturation":
            measured = LOADING_SECONDS + 4 * plan.network_seconds if phase.system == OURS else 0.0
            return QUIET_SECONDS + plan.warm_seconds + plan.drain_seconds + measured
        case _:
            return QUIET_SECONDS


def _flexible(phase: Phase, plan: Plan) -> float:
    match phase.kind:
        case "search":
            return plan.search_seconds if phase.system == OURS else plan.search_seconds_baseline
        case "own" | "common":
            return plan.load_seconds
        case "burst":
            return plan.before_burst + plan.after_burst
        case "saturation":
            return plan.saturation_seconds
