"""Running totals of a run that goes on: what the live display shows. No clock, no I/O."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.report.statistics.histogram import TimeHistogram
from loadgen.report.statistics.slo import Slo
from loadgen.report.statistics.summary import meets

RATE_SECONDS: Final = 5
"""The rate shown is that of so many whole seconds."""
HISTORY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class View:
    """A run at one moment. `p50`, `p95` and `attainment` are of all that ended so far, None while
    there is nothing to tell; `done_per_second` is of the last `HISTORY_SECONDS` whole seconds, the
    oldest first."""

    at: float
    sent: int
    sent_per_second: float
    in_flight: int
    done: int
    failed: int
    p50: float | None
    p95: float | None
    attainment: float | None
    done_per_second: tuple[int, ...]


class Tally:
    """Counts; memory is bounded by what is in flight and `HISTORY_SECONDS`."""

    def __init__(self, slo: Slo) -> None:
        self._slo = slo
        self._flying: set[int] = set()
        self._sent = self._done = self._failed = self._met = self._judged = 0
        self._times = TimeHistogram()
        self._sent_in: Counter[int] = Counter()
        self._done_in: Counter[int] = Counter()

    def __repr__(self) -> str:
        return f"<Tally {self._sent} sent, {self.in_flight} in flight, {self._done} done>"

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def sent(self, shot: Shot, at: float) -> None:
        self._flying.add(shot.number)
        self._sent += 1
        _count(self._sent_in, at)

    def ended(self, outcome: Outcome) -> None:
        """Also of what was never sent."""
        self._flying.discard(outcome.shot.number)
        if outcome.status == "done":
            self._done += 1
            self._times.record(outcome.latency)
            _count(self._done_in, outcome.ended_at)
        elif not outcome.own:
            self._failed += 1
        met = meets(self._slo, outcome)
        self._judged += met is not None
        self._met += met is True

    def view(self, at: float) -> View:
        """`at`: seconds since the run's start."""
        whole = int(at)
        recent = range(max(0, whole - RATE_SECONDS), whole)
        history = range(max(0, whole - HISTORY_SECONDS), whole)
        p50, p95 = self._times.percentiles((50, 95)) if self._done else (None, None)
        return View(
            at=at,
            sent=self._sent,
            sent_per_second=sum(self._sent_in[s] for s in recent) / (len(recent) or 1),
            in_flight=self.in_flight,
            done=self._done,
            failed=self._failed,
            p50=p50,
            p95=p95,
            attainment=self._met / self._judged if self._judged else None,
            done_per_second=tuple(self._done_in[second] for second in history),
        )


def _count(counter: Counter[int], at: float) -> None:
    counter[int(at)] += 1
    for old in [second for second in counter if second < int(at) - HISTORY_SECONDS - 1]:
        del counter[old]
