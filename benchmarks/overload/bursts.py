"""What became of the requests of a burst. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.harness.numbers import MILLISECONDS, percentile
from benchmarks.harness.program import Results
from loadgen.outcomes.outcome import Outcome
from loadgen.report.statistics.slo import OwnDeadlines
from loadgen.report.statistics.summary import meets

REFUSALS: Final = frozenset({"deadline_unreachable", "backlog_full", "queue_full"})
"""Failures that say no before any work was done."""
AT_ONCE: Final = 0.25
"""Share of its deadline after which a request that is refused had been let in."""


@dataclass(frozen=True, slots=True)
class Burst:
    """`possible`: requests that anybody could have had in time, at most. `steps`: that rows took,
    `drawn`: of them, those of rows with a picture. `processor`: seconds by service."""

    outcomes: Sequence[Outcome]
    possible: int
    steps: int = 0
    drawn: int = 0
    processor: Mapping[str, float] | None = None

    @property
    def in_time(self) -> int:
        return sum(meets(OwnDeadlines(), outcome) is True for outcome in self.outcomes)

    @property
    def refused(self) -> list[float]:
        """Seconds until each refusal."""
        return [o.ended_at - o.sent_at for o in self.outcomes if _is_refused(o)]

    def as_json(self) -> Results:
        return {
            "requests": len(self.outcomes),
            "in_time": self.in_time,
            "possible": self.possible,
            "ends": dict(Counter(o.failure or o.status for o in self.outcomes)),
            "refused_ms": _p95_ms(self.refused),
            "wasted": self.steps - self.drawn,
            "steps": self.steps,
            "processor": {name: round(s, 2) for name, s in (self.processor or {}).items()},
        }


def attainment(bursts: Sequence[Burst]) -> float | None:
    """Over what was possible."""
    return _ratio(sum(b.in_time for b in bursts), sum(b.possible for b in bursts))


def admitted_in_time(bursts: Sequence[Burst]) -> float | None:
    admitted = sum(len(b.outcomes) - sum(map(_at_once, b.outcomes)) for b in bursts)
    return _ratio(sum(b.in_time for b in bursts), admitted)


def wasted_share(bursts: Sequence[Burst]) -> float | None:
    return _ratio(sum(b.steps - b.drawn for b in bursts), sum(b.steps for b in bursts))


def refused_ms_p95(bursts: Sequence[Burst]) -> float | None:
    return _p95_ms([seconds for burst in bursts for seconds in burst.refused])


def _is_refused(outcome: Outcome) -> bool:
    return outcome.status != "done" and outcome.failure in REFUSALS


def _at_once(outcome: Outcome) -> bool:
    """A refusal that comes later breaks a promise."""
    soon = AT_ONCE * (outcome.shot.request.deadline or 0.0)
    return _is_refused(outcome) and outcome.ended_at - outcome.sent_at <= soon


def _p95_ms(seconds: Sequence[float]) -> float | None:
    return round(percentile(seconds, 95) * MILLISECONDS, 1) if seconds else None


def _ratio(count: int, of: int) -> float | None:
    return round(count / of, 4) if of else None
