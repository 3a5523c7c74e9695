"""Rates and trends by what came."""

import pytest

from shared.policy.placement.arrivals import Arrivals


def after(seconds: int, jobs: int, begun: Arrivals | None = None) -> Arrivals:
    """So many jobs in each second."""
    found = begun or Arrivals(0.0, 0.0)
    start = found.at
    for second in range(1, seconds + 1):
        found = found.after(start + second, jobs, 2.0, 3.0)
    return found


def test_the_rate_is_known_from_the_first_seconds_on() -> None:
    assert after(3, 4).rate == pytest.approx(4.0, rel=0.3)
    assert after(100, 4).rate == pytest.approx(4.0, rel=0.06)


def test_a_constant_rate_has_no_trend_and_one_that_rises_has() -> None:
    steady = after(200, 4)
    assert steady.trend == 0.0
    assert after(10, 12, steady).trend > 0.05
    assert after(10, 12, steady).rate > 8.0
    assert after(20, 0, steady).trend < -0.03


def test_what_chance_explains_is_no_change() -> None:
    steady = after(200, 4)
    assert after(2, 6, steady).trend == 0.0
    assert after(2, 6, steady).rate == pytest.approx(4.0, rel=0.05)


def test_what_nobody_asks_for_any_more_is_idle_and_has_no_rate() -> None:
    gone = after(600, 0, after(20, 4))
    assert gone.rate == 0.0
    assert gone.idle == 600.0
    assert gone.seconds == 2.0
    assert not gone.demand(0.0).wanted


def test_what_jobs_take_and_how_long_they_may_wait_is_a_mean() -> None:
    found = Arrivals(0.0, 0.0).after(1.0, 1, 1.0, 10.0)
    assert (found.seconds, found.slack) == (1.0, 10.0)
    later = found.after(2.0, 1, 2.0, 20.0)
    assert 1.0 < later.seconds < 2.0
    assert later.slack is not None
    assert 10.0 < later.slack < 20.0
    demand = later.demand(7.0)
    assert (demand.seconds, demand.slack, demand.backlog) == (later.seconds, later.slack, 7.0)
