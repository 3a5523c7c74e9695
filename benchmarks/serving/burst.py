"""What a burst did to a system, from what became of its requests. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadgen.outcomes.outcome import Outcome
from loadgen.report.statistics.slo import Slo
from loadgen.report.statistics.summary import meets


@dataclass(frozen=True, slots=True)
class Burst:
    """Seconds from the run's start at which the rate rose and fell again."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """`seconds` after the burst's end there were no more requests in the system than the most there
    had been before it. Not `recovered`: that had not happened when the run ended."""

    seconds: float
    recovered: bool
    most_before: int
    most: int


def attainment(outcomes: Sequence[Outcome], burst: Burst, slo: Slo) -> tuple[int, int]:
    """Of the requests sent in the burst: how many met their deadline, and how many there were."""
    sent = [outcome for outcome in outcomes if burst.began <= outcome.shot.at < burst.ended]
    return sum(meets(slo, outcome) is True for outcome in sent), len(sent)


def recovery(outcomes: Sequence[Outcome], burst: Burst) -> Recovery:
    """When the queue was as before, seen from outside: requests sent and not ended."""
    levels = _in_flight(outcomes)
    before = [count for at, count in levels if at < burst.began]
    most_before = max(before, default=0)
    most = max((count for _, count in levels), default=0)
    sending_ended = max((outcome.sent_at for outcome in outcomes), default=0.0)
    at_end = next((count for at, count in reversed(levels) if at <= burst.ended), 0)
    if at_end <= most_before:
        return Recovery(0.0, True, most_before, most)
    for at, count in levels:
        if burst.ended < at <= sending_ended and count <= most_before:
            return Recovery(at - burst.ended, True, most_before, most)
    return Recovery(max(0.0, sending_ended - burst.ended), False, most_before, most)


def _in_flight(outcomes: Sequence[Outcome]) -> list[tuple[float, int]]:
    """The number in flight from each moment on at which it changes."""
    changes = sorted(
        [(outcome.ended_at, -1) for outcome in outcomes]
        + [(outcome.sent_at, 1) for outcome in outcomes]
    )
    levels, count = [], 0
    for at, change in changes:
        count += change
        levels.append((at, count))
    return levels
