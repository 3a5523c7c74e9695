"""Bytes come no faster than is allowed, and how fast they come is learnt."""

import pytest

from shared.residency.rates import MEMORY, SLACK_SECONDS, Pace, Rate


def test_bytes_are_through_one_after_another_whoever_asks() -> None:
    pace = Pace(rate=100.0)
    pace.wait(1, now=0.0)
    waits = [pace.wait(50, now=10.0) for _ in range(3)]
    assert waits == pytest.approx([0.5 - SLACK_SECONDS + 0.5 * n for n in range(3)])


def test_who_wakes_up_a_little_late_catches_up_and_who_idled_does_not() -> None:
    pace = Pace(rate=100.0)
    pace.wait(100, now=10.0)
    assert pace.wait(100, now=11.0) == pytest.approx(1.0 - SLACK_SECONDS)
    assert pace.wait(100, now=100.0) == pytest.approx(1.0 - SLACK_SECONDS)


def test_what_was_seen_counts_from_the_first_load_on_and_the_latest_ones_most() -> None:
    rate = Rate(bytes_per_second=1.0)
    assert rate.seconds(10) == 10.0
    rate.observe(100, 2.0)
    assert rate.seconds(10) == pytest.approx(0.2)
    rate.observe(100, 4.0)
    assert rate.seconds(10) == pytest.approx(0.3)
    for _ in range(10 * MEMORY):
        rate.observe(100, 8.0)
    assert rate.seconds(10) == pytest.approx(0.8, rel=1e-3)


def test_a_load_of_nothing_says_nothing_about_the_rate() -> None:
    rate = Rate(bytes_per_second=1.0)
    rate.observe(0, 5.0)
    assert rate.seconds(10) == 10.0
