"""Trials for `find_rate`: a run at one rate, and how many of its requests met their deadline."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from loadgen.outcomes.lacks import REASONS
from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.report.statistics.slo import Slo, deadline_of
from loadgen.report.statistics.summary import meets
from loadgen.runs.find_rate import Trial
from loadgen.runs.run import Interrupted, Observer, run_open
from loadgen.runs.solo import examples, until_quiet
from loadgen.targets.base import Target
from loadgen.workload.arrivals import Arrivals, Constant, Gamma, Poisson
from loadgen.workload.workload import Workload, schedule
from shared.errors import InvalidRequest, Misconfigured

MIN_REQUESTS: Final = 20
"""Expected in a trial: a low rate is tried for longer than the workload says."""


@dataclass
class Trials:
    """Runs `workload` at any rate; what `find_rate` calls.

    Each trial has a seed of its own. Its requests may be in flight until the last deadline has
    passed: who takes longer has missed it, and is cut off. With `solo` (seconds per template), a
    trial begins when the server has got over the one before. `all`: every trial so far, for
    who is interrupted; `runs`: the last run at each rate."""

    workload: Workload
    target: Target
    slo: Slo
    solo: dict[str, float] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    observer: Observer | None = None
    notify: Callable[[Trial], None] = lambda trial: None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    all: list[Trial] = field(default_factory=list)
    runs: dict[float, tuple[Workload, list[Outcome]]] = field(default_factory=dict)

    async def __call__(self, rate: float) -> Trial:
        """Raises `InvalidRequest` for arrivals without a single rate, or without deadlines,
        `Misconfigured` if this machine could not send all of them, and `Interrupted`."""
        workload = at_rate(self.workload, rate, seed=self.workload.seed + len(self.all))
        shots = schedule(workload)
        quiet = await self._until_quiet(shots)
        outcomes = await run_open(
            shots,
            self.target,
            observer=self.observer,
            limits=msgspec.structs.replace(self.limits, drain=longest_deadline(self.slo, shots)),
            stop=self.stop,
        )
        if self.stop.is_set():
            raise Interrupted
        _refuse_unsent(outcomes, rate)
        met = sum(meets(self.slo, outcome) is True for outcome in outcomes)
        trial = Trial(rate=rate, met=met, of=len(outcomes), quiet=quiet)
        self.all.append(trial)
        self.notify(trial)
        self.runs[rate] = workload, outcomes
        return trial

    async def _until_quiet(self, shots: Sequence[Shot]) -> bool:
        if not self.solo or not self.all:
            return True
        shortest = min(examples(shots).values(), key=lambda shot: self.solo[shot.template])
        solo = self.solo[shortest.template]
        return await until_quiet(shortest, solo, self.target, stop=self.stop)


def at_rate(workload: Workload, rate: float, seed: int) -> Workload:
    """`workload` with another rate and seed. Raises `InvalidRequest` unless it has one rate."""
    seconds = max(workload.seconds, MIN_REQUESTS / rate)
    arrivals = _at_rate(workload, rate)
    return msgspec.structs.replace(workload, arrivals=arrivals, seconds=seconds, seed=seed)


def _at_rate(workload: Workload, rate: float) -> Arrivals:
    match workload.arrivals:
        case (Constant() | Poisson() | Gamma()) as arrivals if workload.trace is None:
            return msgspec.structs.replace(arrivals, rate=rate)
        case other:
            kind = "a trace" if workload.trace is not None else type(other).__name__.lower()
            raise InvalidRequest("arrivals", kind, "constant, poisson or gamma, to find a rate")


def _refuse_unsent(outcomes: Sequence[Outcome], rate: float) -> None:
    """A rate that was not offered is neither kept nor missed."""
    unsent = [outcome.failure for outcome in outcomes if outcome.own]
    if unsent:
        raise Misconfigured(
            f"{len(unsent)} of {len(outcomes)} requests at {rate:.3f}/s could not be sent: "
            f"{REASONS[str(unsent[0])]}"
        )


def longest_deadline(slo: Slo, shots: Sequence[Shot]) -> float:
    """The longest deadline of `shots`, in seconds. Raises `InvalidRequest` if one has none."""
    longest = 0.0
    for shot in shots:
        deadline = deadline_of(slo, shot)
        if deadline is None:
            raise InvalidRequest(
                "slo", "none", "seconds, or a multiple such as 2x, for requests without a deadline"
            )
        longest = max(longest, deadline)
    return longest
