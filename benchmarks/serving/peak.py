"""The highest rate that a system sustains, searched for in several visits."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.harness.program import say
from benchmarks.serving.search import Next, Search, bracket, next_trial
from loadgen.runs.find_rate import Level, pooled, surely
from loadgen.runs.find_rate import Trial as RateTrial


@dataclass(frozen=True, slots=True)
class Peak:
    """`level`: of the highest rate that was sustained; if none was (not `found`), of the lowest
    that was tried, which is to a system's credit. `surely`: see `find_rate.surely`."""

    level: Level
    found: bool
    surely: tuple[float, float | None]
    levels: tuple[Level, ...] = ()

    @property
    def sustained(self) -> float:
        return self.level.rate

    def as_json(self) -> dict[str, Any]:
        return {
            "rate": self.sustained,
            "rate_was_sustained": self.found,
            "rate_share_in_time": round(self.level.share, 4),
            "rate_share_interval": _interval(self.level),
            "rate_requests": self.level.of,
            "rate_surely": list(self.surely),
            "levels": [
                {
                    "rate": round(level.rate, 4),
                    "met": level.met,
                    "of": level.of,
                    "interval": _interval(level),
                }
                for level in self.levels
            ],
        }


def _interval(level: Level) -> list[float]:
    return [round(level.low, 4), round(level.high, 4)]


@dataclass
class PeakSearch:
    """A search that is interrupted for other systems' turns: what was found out before counts."""

    name: str
    search: Search
    trials: list[RateTrial] = field(default_factory=list)

    def start_at(self, rate: float) -> None:
        """The first rate to try."""
        self.search = replace(self.search, start=rate)

    @property
    def peak(self) -> Peak:
        """What is known by now; something must have been tried."""
        levels, share = pooled(self.trials), self.search.share
        good, _ = bracket(levels, share)
        level = good or levels[0]
        sure = surely(levels, share, level.rate)
        return Peak(level, good is not None, sure, tuple(levels))

    async def go_on(
        self,
        trial: Callable[[Next, int], Awaitable[RateTrial]],
        budget: float,
        overhead: float,
    ) -> None:
        """Until nothing is left to try or the next trial does not fit into what remains of `budget`
        seconds. `trial` takes what to offer and a number of its own; `overhead`: seconds that it
        takes besides sending."""
        began = time.monotonic()
        while (wanted := next_trial(self.trials, self.search)) is not None:
            left = budget - (time.monotonic() - began) - overhead
            least = self.search.coarsely(wanted.rate)
            offered = that_fit(wanted, left, least)
            if offered is None and self.trials:
                return
            offered = offered or least  # something must be known
            done = await trial(offered, len(self.trials))
            self.trials.append(done)
            say(f"  {self.name}: {done.met} of {done.of} in time at {done.rate:.3f} requests/s")


def that_fit(wanted: Next, seconds: float, least: Next) -> Next | None:
    """As many of the requests as can be sent in `seconds`; None if fewer than `least` has."""
    requests = min(wanted.requests, int(seconds * wanted.rate))
    return Next(wanted.rate, requests) if requests >= least.requests else None
