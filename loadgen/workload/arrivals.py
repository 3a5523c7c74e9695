"""When requests come: a rate that changes over time, and how regular the gaps are. Pure.

A renewal process of mean gap 1 (gamma gaps with a coefficient of variation `cv`: 0 is a clock, 1 is
Poisson, more is bursty) is drawn in operational time and mapped to seconds through the inverse of
the rate's integral (Çınlar 1975, time change of a unit-rate process), so every shape of rate works
with every kind of gap.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

MAX_ARRIVALS: Final = 1_000_000
"""Of one run: a schedule is held in memory."""

LEAST_VARIATION: Final = 0.001
"""Gaps that vary less than this are a clock's."""

Rate = Annotated[float, Meta(gt=0, le=100_000)]
"""Requests per second."""
NoRate = Annotated[float, Meta(ge=0, le=100_000)]
Seconds = Annotated[float, Meta(gt=0, le=1_000_000)]
Variation = Annotated[float, Meta(ge=0, le=100)]


class _Arrivals(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    pass


class Constant(_Arrivals, frozen=True, kw_only=True, tag="constant"):
    """One request every 1/rate seconds."""

    rate: Rate


class Poisson(_Arrivals, frozen=True, kw_only=True, tag="poisson"):
    """Independent users: exponential gaps."""

    rate: Rate


class Gamma(_Arrivals, frozen=True, kw_only=True, tag="gamma"):
    """Gaps of mean 1/rate and standard deviation cv/rate."""

    rate: Rate
    cv: Variation


class Steps(_Arrivals, frozen=True, kw_only=True, tag="steps"):
    """Each of `rates` for an equal part of the run, one after another."""

    rates: Annotated[tuple[NoRate, ...], Meta(min_length=1, max_length=1000)]
    cv: Variation = 1.0


class Ramp(_Arrivals, frozen=True, kw_only=True, tag="ramp"):
    """A rate that goes evenly from `start` to `end`."""

    start: NoRate
    end: NoRate
    cv: Variation = 1.0


class Burst(_Arrivals, frozen=True, kw_only=True, tag="burst"):
    """`rate`, and `factor` times as much for `seconds` from `at` on."""

    rate: Rate
    factor: Annotated[float, Meta(gt=0, le=10_000)]
    at: Annotated[float, Meta(ge=0)]
    seconds: Seconds
    cv: Variation = 1.0


Arrivals = Constant | Poisson | Gamma | Steps | Ramp | Burst


@dataclass(frozen=True, slots=True)
class Segment:
    """`seconds` in which the rate goes evenly from `start` to `end`."""

    seconds: float
    start: float
    end: float

    @property
    def mass(self) -> float:
        """The expected number of requests."""
        return self.seconds * (self.start + self.end) / 2

    def when(self, mass: float) -> float:
        """The second at which `mass` requests are expected; `mass` is within the segment's."""
        if mass == 0:
            return 0.0
        slope = (self.end - self.start) / self.seconds
        # The root of start·t + slope·t²/2 = mass, in the form that does not cancel.
        return 2 * mass / (self.start + math.sqrt(max(0.0, self.start**2 + 2 * slope * mass)))


def times(arrivals: Arrivals, seconds: float, random: Random) -> list[float]:
    """Ascending send times in [0, seconds), at most `MAX_ARRIVALS` of them."""
    found: list[float] = []
    for at in _mapped(profile(arrivals, seconds), _unit_times(_cv(arrivals), random)):
        if len(found) == MAX_ARRIVALS:
            break
        found.append(at)
    return found


def profile(arrivals: Arrivals, seconds: float) -> tuple[Segment, ...]:
    """The rate over a run of `seconds`."""
    match arrivals:
        case Constant(rate=rate) | Poisson(rate=rate) | Gamma(rate=rate):
            return (Segment(seconds, rate, rate),)
        case Steps(rates=levels):
            return tuple(Segment(seconds / len(levels), rate, rate) for rate in levels)
        case Ramp(start=start, end=end):
            return (Segment(seconds, start, end),)
        case Burst(rate=rate, factor=factor, at=at, seconds=lasting):
            cuts = [0.0, min(at, seconds), min(at + lasting, seconds), seconds]
            rates = [rate, factor * rate, rate]
            return tuple(
                Segment(end - begin, each, each)
                for (begin, end), each in zip(pairwise(cuts), rates, strict=True)
                if end > begin
            )


def _cv(arrivals: Arrivals) -> float:
    match arrivals:
        case Constant():
            return 0.0
        case Poisson():
            return 1.0
        case _:
            return arrivals.cv


def _unit_times(cv: float, random: Random) -> Iterator[float]:
    """A renewal process of rate 1. A clock's first tick is at 0, so that n seconds at rate r hold
    exactly n·r requests."""
    if cv < LEAST_VARIATION:
        tick = 0
        while True:
            yield float(tick)
            tick += 1
    shape, now = cv**-2, 0.0
    while True:
        now += random.gammavariate(shape, 1 / shape)
        yield now


def _mapped(segments: Sequence[Segment], masses: Iterator[float]) -> Iterator[float]:
    """The seconds at which the integral of the rate reaches each of `masses` (ascending)."""
    began, before = 0.0, 0.0
    mass = next(masses)
    for segment in segments:
        while mass - before < segment.mass:
            yield began + segment.when(mass - before)
            mass = next(masses)
        began, before = began + segment.seconds, before + segment.mass
