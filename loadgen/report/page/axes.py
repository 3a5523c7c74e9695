"""Axes: which values they show, where, and what stands beside the ticks. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10
from typing import Final

from loadgen.report.statistics.scales import ticks
from loadgen.report.statistics.units import tick_text

PERCENT_TICKS: Final = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999)
CROWDED_PERCENTS: Final = (75.0, 95.0)
CROWDED_DECADES: Final = 3.2
"""On a percentile axis of more decades than this there is no room for the crowded ones."""
LAST_PERCENT: Final = 0.92
"""Where on the axis the last percentage may stand beside "max"."""
TIME_UNITS: Final = ((2 * 3600.0, "h", 3600.0), (600.0, "min", 60.0), (1.0, "s", 1.0))
"""From which length in seconds, the unit's name, and its seconds; anything shorter is in ms."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, with `ticks` as (value, label). `position` maps a value to where it
    stands between 0 and 1."""

    title: str
    ticks: Sequence[tuple[float, str]]
    position: Callable[[float], float]


def linear(title: str, high: float, most: int = 5) -> Axis:
    """From 0 to the first tick at or above `high`."""
    values = ticks(high if high > 0 else 1.0, most)
    text = tick_text(values[1])
    end = values[-1]
    return Axis(title, [(value, text(value)) for value in values], lambda value: value / end)


def counting(title: str, high: float) -> Axis:
    """Linear, for whole numbers: no tick stands between them."""
    return linear(title, max(1.0, high), most=min(5, max(1, int(high))))


def duration(title: str, high: float, most: int = 5) -> Axis:
    """Seconds, shown in the unit that suits `high`."""
    unit, scale = time_unit(high)
    axis = linear(f"{title} ({unit})", high / scale, most)
    return Axis(
        axis.title,
        [(value * scale, label) for value, label in axis.ticks],
        lambda seconds: axis.position(seconds / scale),
    )


def elapsed(title: str, end: float) -> Axis:
    """Seconds from 0 to exactly `end`, so that no part of the plot is empty."""
    axis = duration(title, end, most=8)
    shown = [tick for tick in axis.ticks if tick[0] <= end * (1 + 1e-9)]
    return Axis(axis.title, shown, lambda seconds: seconds / end)


def time_unit(high: float) -> tuple[str, float]:
    """Name and seconds of the unit."""
    for least, unit, scale in TIME_UNITS:
        if high >= least:
            return unit, scale
    return "ms", 1e-3


def percentiles(title: str, count: int) -> Axis:
    """Each factor of ten fewer requests beyond is as wide as the one before; `count` requests
    tell percentiles up to where half of one is left, which is where 100% is put."""
    decades = log10(2 * count)

    def position(percent: float) -> float:
        left = max(1 - percent / 100, 1 / (2 * count))
        return -log10(left) / decades

    shown = [
        percent
        for percent in PERCENT_TICKS
        if (1 - percent / 100) * count >= 1 - 1e-9
        and position(percent) <= LAST_PERCENT
        and not (decades > CROWDED_DECADES and percent in CROWDED_PERCENTS)
    ]
    labels = [(percent, f"{percent:g}%") for percent in shown]
    return Axis(title, [*labels, (100.0, "max")], position)
