"""What changed over a run: intervals of one width, and samples of the server. Pure."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from statistics import fmean
from typing import Final

from loadgen.outcomes.outcome import Outcome, Sample
from loadgen.report.statistics.model import Interval, Occupancy, OccupancyPoint, Timeline
from loadgen.report.statistics.scales import covering, nice_width

INTERVALS: Final = 60
POINTS: Final = 600
"""Most intervals and samples that a report keeps, whatever the length of the run."""
FEWEST: Final = 10
PER_INTERVAL: Final = 5
"""A run of few requests gets fewer intervals, so that a rate is not one request or none."""


def timeline(
    outcomes: Sequence[Outcome], good: Callable[[Outcome], bool], seconds: float
) -> Timeline:
    """From the start to the end of the window, or of the last request if that is later."""
    span = max([seconds, *(outcome.ended_at for outcome in outcomes)])
    most = min(INTERVALS, max(FEWEST, len(outcomes) // PER_INTERVAL))
    width = nice_width(span, most)
    count = covering(span, width)

    def place(at: float) -> int:
        return min(max(0, int(at / width)), count - 1)

    intended = [0] * count
    ended: list[list[Outcome]] = [[] for _ in range(count)]
    for outcome in outcomes:
        intended[place(outcome.shot.at)] += 1
        ended[place(outcome.ended_at)].append(outcome)
    return Timeline(
        width=width,
        intervals=[_interval(i * width, intended[i], ended[i], good) for i in range(count)],
    )


def _interval(
    at: float, intended: int, ended: Sequence[Outcome], good: Callable[[Outcome], bool]
) -> Interval:
    done = [outcome for outcome in ended if outcome.status == "done"]
    times = sorted(outcome.latency for outcome in done)
    return Interval(
        at=at,
        intended=intended,
        done=len(done),
        good=sum(good(outcome) for outcome in done),
        failed=len(ended) - len(done),
        images=sum(outcome.images for outcome in done),
        p50=nearest_rank(times, 50),
        p95=nearest_rank(times, 95),
        max=times[-1] if times else None,
    )


def nearest_rank(ordered: Sequence[float], percent: float) -> float | None:
    """The smallest of the ascending values that so many percent do not exceed."""
    if not ordered:
        return None
    return ordered[max(1, ceil(percent * len(ordered) / 100.0)) - 1]


def occupancy(samples: Sequence[Sample]) -> Occupancy:
    """At most `POINTS` points; where there were more samples, each is the mean of several."""
    every = ceil(len(samples) / POINTS) or 1
    parts = [samples[i : i + every] for i in range(0, len(samples), every)]
    queues = [s.queue_depth for s in samples if s.queue_depth is not None]
    return Occupancy(
        peak_queue_depth=max(queues, default=None),
        peak_in_flight=max((s.in_flight for s in samples), default=0),
        mean_rows_per_step=_mean(s.rows_per_step for s in samples),
        points=[_point(part) for part in parts],
    )


def _point(part: Sequence[Sample]) -> OccupancyPoint:
    return OccupancyPoint(
        at=part[-1].at,
        queue_depth=_mean(s.queue_depth for s in part),
        in_flight=fmean(s.in_flight for s in part),
        rows_per_step=_mean(s.rows_per_step for s in part),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
