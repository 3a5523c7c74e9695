"""How often something is asked for, and whether that grows. Pure.

Two averages that forget at different speeds. The slow one says how much comes; the quick one does
as soon as it differs by more than chance explains, and how much it is above the slow one says how
much that has grown meanwhile.
"""

from dataclasses import dataclass
from math import exp, sqrt
from typing import Final

from shared.policy.placement.state import Demand

QUICK_SECONDS: Final = 10.0
SLOW_SECONDS: Final = 60.0
"""In which an average forgets all but 1/e of what it was."""
CHANCE: Final = 2.0
"""Standard deviations by which arrivals that are independent of each other differ from their
mean."""
REMEMBERED: Final = 20
"""Jobs of which what they take, and how long they may wait, is a mean."""
FORGOTTEN: Final = 1e-3
"""Jobs a second that are none."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Of jobs that ask for one component, by somebody's clock. `quick` and `slow`: jobs, of which
    those that came long ago are forgotten. `seconds`: of a device that a job takes, in the mean;
    `slack`: seconds that one may wait, if they have deadlines. `last`: when somebody asked."""

    since: float
    at: float
    quick: float = 0.0
    slow: float = 0.0
    seconds: float = 0.0
    slack: float | None = None
    last: float | None = None

    @property
    def rate(self) -> float:
        """Jobs a second."""
        rate = self._quick_rate if self._has_changed else self._slow_rate
        return rate if rate > FORGOTTEN else 0.0

    @property
    def trend(self) -> float:
        """By which the rate grows in a second, or shrinks; 0 while that may be chance."""
        if not self._has_changed:
            return 0.0
        return (self._quick_rate - self._slow_rate) / (SLOW_SECONDS - QUICK_SECONDS)

    @property
    def idle(self) -> float:
        """Seconds since somebody asked, as far as is known."""
        return self.at - (self.since if self.last is None else self.last)

    def after(
        self, now: float, jobs: int, seconds: float = 0.0, slack: float | None = None
    ) -> "Arrivals":
        """`jobs` came since the last time, which take `seconds` each, and may wait for `slack`."""
        elapsed = max(0.0, now - self.at)
        kept = self if self.last is not None else None
        if jobs and kept is not None:
            share = jobs / (jobs + min(self.slow, REMEMBERED))
            seconds = kept.seconds + share * (seconds - kept.seconds)
            if slack is not None and kept.slack is not None:
                slack = kept.slack + share * (slack - kept.slack)
        return Arrivals(
            self.since,
            now,
            self.quick * exp(-elapsed / QUICK_SECONDS) + jobs,
            self.slow * exp(-elapsed / SLOW_SECONDS) + jobs,
            seconds if jobs else self.seconds,
            slack if jobs else self.slack,
            now if jobs else self.last,
        )

    def demand(self, backlog: float) -> Demand:
        """With so many seconds of a device that wait."""
        return Demand(self.rate, self.seconds, self.trend, backlog, self.slack, self.idle)

    @property
    def _quick_rate(self) -> float:
        return self.quick / self._seen(QUICK_SECONDS)

    @property
    def _slow_rate(self) -> float:
        return self.slow / self._seen(SLOW_SECONDS)

    @property
    def _has_changed(self) -> bool:
        expected = self._slow_rate * QUICK_SECONDS
        return abs(self._quick_rate * QUICK_SECONDS - expected) > CHANCE * sqrt(expected)

    def _seen(self, window: float) -> float:
        """What an average makes of one job a second, so long after the first look."""
        return window * (1.0 - exp(-max(1.0, self.at - self.since) / window))
