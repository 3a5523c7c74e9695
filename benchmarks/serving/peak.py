"""The highest rate that a system sustains, searched for in several visits."""

import time
from dataclasses import dataclass, field

import msgspec

from benchmarks.program import say
from loadgen.find_rate import Found, Search, decide, found, pooled
from loadgen.find_rate import Trial as RateTrial
from loadgen.report.slo import Slo
from loadgen.targets.base import Target
from loadgen.trial import Trials
from loadgen.workload import Workload


@dataclass
class PeakSearch:
    """One search of `loadgen.find_rate` that is interrupted for other systems' turns: what was
    found out before counts."""

    name: str
    search: Search
    trials: list[RateTrial] = field(default_factory=list)

    def start_at(self, rate: float) -> None:
        """The first rate to try."""
        self.search = msgspec.structs.replace(self.search, start=rate)

    @property
    def result(self) -> Found:
        return found(pooled(self.trials), self.trials, self.search)

    @property
    def rate(self) -> float:
        """The highest rate that was sustained; if none was, the lowest that was tried, which
        flatters the system."""
        return self.result.rate or min(trial.rate for trial in self.trials)

    async def go_on(
        self,
        workload: Workload,
        target: Target,
        slo: Slo,
        solo: dict[str, float],
        budget: float,
    ) -> None:
        """Until nothing is left to try, or `budget` seconds have passed and some rate was
        sustained, or twice as many (a trial that has begun is finished). `solo`: this system's own
        latencies, by which a trial sees that the one before is over."""
        began = time.monotonic()
        run = Trials(workload, target, slo, solo, all=list(self.trials))
        while isinstance(rate := decide(self.trials, self.search), float):
            patience = budget if self.result.rate > 0 else 2 * budget
            if time.monotonic() - began >= patience:
                return
            trial = await run(rate)
            self.trials.append(trial)
            say(f"{self.name}: {trial.met} of {trial.of} in time at {rate:.3f} requests/s")
