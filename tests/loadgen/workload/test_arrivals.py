from collections.abc import Sequence
from itertools import pairwise
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.workload.arrivals import (
    Arrivals,
    Burst,
    Constant,
    Gamma,
    Poisson,
    Ramp,
    Steps,
    profile,
    times,
)

EVERY_KIND: Sequence[Arrivals] = (
    Constant(rate=3),
    Poisson(rate=3),
    Gamma(rate=3, cv=3),
    Steps(rates=(1, 0, 5)),
    Ramp(start=0, end=6),
    Ramp(start=6, end=0, cv=0),
    Burst(rate=1, factor=8, at=20, seconds=10),
)


def drawn(arrivals: Arrivals, seconds: float, seed: int = 0) -> list[float]:
    return times(arrivals, seconds, Random(seed))


def between(instants: Sequence[float], begin: float, end: float) -> int:
    return sum(begin <= instant < end for instant in instants)


@pytest.mark.parametrize("arrivals", EVERY_KIND, ids=lambda each: type(each).__name__)
def test_the_same_seed_gives_the_same_times_and_another_one_others(arrivals: Arrivals) -> None:
    assert drawn(arrivals, 60) == drawn(arrivals, 60)
    if getattr(arrivals, "cv", 1) and not isinstance(arrivals, Constant):
        assert drawn(arrivals, 60) != drawn(arrivals, 60, seed=1)


@pytest.mark.parametrize("arrivals", EVERY_KIND, ids=lambda each: type(each).__name__)
def test_times_ascend_within_the_run_and_are_as_many_as_the_rate_says(arrivals: Arrivals) -> None:
    instants = drawn(arrivals, 1000)
    assert all(early <= late for early, late in pairwise(instants))
    assert instants[0] >= 0
    assert instants[-1] < 1000
    expected = sum(segment.mass for segment in profile(arrivals, 1000))
    assert len(instants) == pytest.approx(expected, rel=0.15)


def test_a_constant_rate_is_a_clock_that_ticks_at_once() -> None:
    assert drawn(Constant(rate=2), 2) == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 3.0])
def test_gaps_have_the_mean_and_the_variation_that_were_asked_for(cv: float) -> None:
    instants = drawn(Gamma(rate=4, cv=cv), 10_000)
    gaps = [late - early for early, late in pairwise(instants)]
    assert fmean(gaps) == pytest.approx(0.25, rel=0.05)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(cv, rel=0.05, abs=1e-6)


def test_a_burst_multiplies_the_rate_while_it_lasts() -> None:
    instants = drawn(Burst(rate=2, factor=8, at=100, seconds=100, cv=0), 300)
    assert [between(instants, begin, begin + 100) for begin in (0, 100, 200)] == [200, 1600, 200]


def test_a_burst_that_outlives_the_run_is_cut() -> None:
    assert [s.seconds for s in profile(Burst(rate=1, factor=2, at=5, seconds=50), 10)] == [5, 5]
    assert [s.seconds for s in profile(Burst(rate=1, factor=2, at=50, seconds=5), 10)] == [10]


def test_steps_take_equal_parts_of_the_run() -> None:
    instants = drawn(Steps(rates=(1, 0, 4), cv=0), 30)
    assert [between(instants, begin, begin + 10) for begin in (0, 10, 20)] == [10, 0, 40]


def test_a_ramp_sends_in_proportion_to_the_rate_of_the_moment() -> None:
    instants = drawn(Ramp(start=0, end=8, cv=0), 100)
    quarters = [between(instants, begin, begin + 25) for begin in (0, 25, 50, 75)]
    assert quarters == [25, 75, 125, 175]


@settings(max_examples=50, deadline=None)
@given(
    start=st.floats(0, 50), end=st.floats(0, 50), seconds=st.floats(0.1, 100), cv=st.floats(0, 4)
)
def test_no_ramp_leaves_the_run(start: float, end: float, seconds: float, cv: float) -> None:
    for instant in drawn(Ramp(start=start, end=end, cv=cv), seconds):
        assert 0 <= instant <= seconds * (1 + 1e-9)
