"""How latencies are distributed: bins for a histogram, points for a percentile curve. Pure."""

from collections.abc import Sequence
from typing import Final

from loadgen.report.statistics.histogram import TimeHistogram
from loadgen.report.statistics.model import Bin, CurvePoint
from loadgen.report.statistics.scales import nice_width

BINS: Final = 40
PER_HALVING: Final = 5
"""Points of the curve between 0 and 50%, between 50 and 75%, between 75 and 87.5%, and so on."""


def bins(seconds: Sequence[float]) -> list[Bin]:
    """Bins of one round width, about `BINS` at most, from 0 to above the 99th percentile, and one
    for what took longer, so that a few stragglers do not squeeze all others into one bin."""
    if not seconds:
        return []
    times = TimeHistogram(seconds)
    [p99] = times.percentiles((99,))
    width = nice_width(max(p99, 1e-6), BINS)
    counts = [0] * (int(p99 / width) + 1)
    beyond = 0
    for value in seconds:
        place = int(max(0.0, value) / width)
        if place < len(counts):
            counts[place] += 1
        else:
            beyond += 1
    found = [Bin(low=i * width, high=(i + 1) * width, count=n) for i, n in enumerate(counts)]
    return [*found, Bin(low=len(counts) * width, high=None, count=beyond)] if beyond else found


def curve(seconds: Sequence[float]) -> list[CurvePoint]:
    """Ascending; as far out as the number of values can tell, and 100% at the end."""
    if not seconds:
        return []
    times = TimeHistogram(seconds)
    percents = [*percent_ticks(len(seconds)), 100.0]
    return [
        CurvePoint(percentile=percent, seconds=value)
        for percent, value in zip(percents, times.percentiles(percents), strict=True)
    ]


def percent_ticks(count: int) -> list[float]:
    """Percentages up to 100 - 100 / count, closer together towards the end."""
    found: list[float] = []
    left = 1.0
    while left * count > 1.0:
        found += [100.0 * (1 - left + left / 2 * i / PER_HALVING) for i in range(PER_HALVING)]
        left /= 2
    return found
