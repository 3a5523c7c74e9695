"""Percentiles, intervals, deadlines: what a report is calculated with."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.report.statistics.distribution import bins, curve, percent_ticks
from loadgen.report.statistics.histogram import LONGEST_SECONDS, TimeHistogram
from loadgen.report.statistics.scales import covering, nice_width, ticks
from loadgen.report.statistics.series import nearest_rank
from loadgen.report.statistics.slo import Absolute, OwnDeadlines, TimesSolo, deadline_of, parse_slo
from loadgen.report.statistics.units import bytes_text, number_text, percent_text, seconds_text
from loadgen.report.statistics.wilson import wilson
from shared.errors import InvalidRequest
from tests.loadgen.report.shots import shot

TIMES = st.lists(st.floats(1e-5, 3600.0), min_size=1, max_size=200)
PERCENTS = (1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
MICROSECOND = 1e-6
FEW = settings(deadline=None, derandomize=True, max_examples=40)


@FEW
@given(TIMES)
def test_percentiles_are_numpys_to_a_thousandth(times: list[float]) -> None:
    expected = np.percentile(times, PERCENTS, method="inverted_cdf")
    found = TimeHistogram(times).percentiles(PERCENTS)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=MICROSECOND)


@FEW
@given(TIMES, st.floats(0.1, 100.0))
def test_so_many_percent_of_all_times_are_within_a_percentile(
    times: list[float], percent: float
) -> None:
    [found] = TimeHistogram(times).percentiles([percent])
    within = sum(time <= found + MICROSECOND for time in times)
    assert within >= percent / 100 * len(times) - 1e-9


@FEW
@given(TIMES)
def test_no_percentile_is_above_the_maximum_which_is_exact(times: list[float]) -> None:
    histogram = TimeHistogram(times)
    assert abs(histogram.max - max(times)) <= MICROSECOND
    assert histogram.percentiles([100.0]) == [histogram.max]
    assert max(histogram.percentiles(PERCENTS)) <= histogram.max


@FEW
@given(TIMES)
def test_percentiles_of_an_interval_are_those_of_the_histogram(times: list[float]) -> None:
    for percent in (50.0, 95.0):
        [expected] = TimeHistogram(times).percentiles([percent])
        found = nearest_rank(sorted(times), percent)
        assert found == pytest.approx(expected, rel=1e-3, abs=MICROSECOND)


def test_ninety_percent_of_sixteen_times_are_fifteen() -> None:
    assert TimeHistogram(range(1, 17)).percentiles([90])[0] == pytest.approx(15, rel=1e-3)


def test_times_that_cannot_be_are_kept_at_the_ends() -> None:
    histogram = TimeHistogram([-1.0, 10.0 * LONGEST_SECONDS])
    assert len(histogram) == 2
    assert [seconds for seconds, _ in histogram.counts()] == [0.0, LONGEST_SECONDS]


def test_there_are_no_percentiles_of_nothing() -> None:
    with pytest.raises(ValueError, match="no times"):
        TimeHistogram().percentiles([50])
    assert nearest_rank([], 50) is None


@FEW
@given(TIMES)
def test_every_time_is_in_one_bin(times: list[float]) -> None:
    found = bins(times)
    assert sum(one.count for one in found) == len(times)
    for one in found:
        inside = [t for t in times if one.low <= t and (one.high is None or t < one.high)]
        # A time on an edge may round either way.
        assert abs(len(inside) - one.count) <= sum(
            math.isclose(t, edge) for t in times for edge in (one.low, one.high or 0.0)
        )
    assert len(found) <= 42


@FEW
@given(TIMES)
def test_the_curve_rises_to_the_maximum(times: list[float]) -> None:
    points = curve(times)
    assert [p.percentile for p in points] == sorted({p.percentile for p in points})
    assert [p.seconds for p in points] == sorted(p.seconds for p in points)
    assert points[-1].percentile == 100.0
    assert points[-1].seconds == pytest.approx(max(times), abs=MICROSECOND)


def test_the_curve_goes_as_far_as_the_number_of_requests_can_tell() -> None:
    assert max(percent_ticks(10)) < 95 < max(percent_ticks(100)) < 99.5 < max(percent_ticks(1000))
    assert percent_ticks(1) == []


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_the_share(met: int, missed: int) -> None:
    low, high = wilson(met, met + missed)
    assert 0.0 <= low <= high <= 1.0
    if met + missed:
        assert low <= met / (met + missed) <= high


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for met, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert list(wilson(met, of)) == pytest.approx([low, high], abs=5e-5)


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-6, 1e6), st.integers(1, 100))
def test_so_many_round_widths_cover_a_span(span: float, most: int) -> None:
    width = nice_width(span, most)
    count = covering(span, width)
    assert count <= most
    assert count * width >= span * (1 - 1e-6)
    assert f"{width:e}"[0] in "125"


def test_ticks_are_round_and_reach_the_highest_value() -> None:
    assert ticks(4.2) == [0, 1, 2, 3, 4, 5]
    assert ticks(0.3, 3) == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("text", "slo"),
    [("1.5", Absolute(1.5)), ("2x", TimesSolo(2.0)), ("none", OwnDeadlines())],
)
def test_a_deadline_is_written_in_short(text: str, slo: object) -> None:
    assert parse_slo(text) == slo


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "infx", "2y", "1.5s"])
def test_other_deadlines_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="slo"):
        parse_slo(text)


def test_each_kind_of_deadline_applies() -> None:
    hurried = shot(template="small", deadline=7.0)
    assert deadline_of(Absolute(1.5), hurried) == 1.5
    assert deadline_of(TimesSolo(2.0, {"small": 0.8}), hurried) == 1.6
    assert deadline_of(OwnDeadlines(), hurried) == 7.0
    assert deadline_of(OwnDeadlines(), shot()) is None


def test_a_template_that_was_not_measured_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"'large'.*small"):
        deadline_of(TimesSolo(2.0, {"small": 0.8}), shot(template="large"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 s"),
        (2e-5, "20.0 µs"),
        (0.0123, "12.3 ms"),
        (0.99999, "1.00 s"),
        (12.345, "12.3 s"),
        (61, "61.0 s"),
        (750, "12 min 30 s"),
    ],
)
def test_times_are_written_with_a_unit_that_fits(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_numbers_keep_three_digits_and_whole_ones_all() -> None:
    assert [number_text(n) for n in (0, 0.01234, 9.4, 98765)] == ["0", "0.0123", "9.40", "98765"]
    assert [bytes_text(n) for n in (999, 1500, 2.5e6, 3e9)] == [
        "999 B",
        "1.50 kB",
        "2.50 MB",
        "3.00 GB",
    ]


def test_a_share_is_all_or_nothing_only_where_it_is() -> None:
    assert [percent_text(s) for s in (0.0, 0.0001, 0.5, 0.99999, 1.0)] == [
        "0%",
        "0.1%",
        "50.0%",
        "99.9%",
        "100%",
    ]
