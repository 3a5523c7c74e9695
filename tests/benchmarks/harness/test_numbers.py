"""The sums behind the figures."""

import pytest

from benchmarks.harness.numbers import mean_rows, percentile, spread


def test_a_percentile_lies_between_its_neighbours() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([0.0, 10.0], 95) == pytest.approx(9.5)
    assert percentile([7.0], 95) == 7.0


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_spread_is_in_milliseconds() -> None:
    assert spread([0.001, 0.002, 0.003]) == {"p50_ms": 2.0, "p95_ms": 2.9}


def test_mean_rows_counts_a_shared_step_once() -> None:
    one_step_of_three_rows, one_step_of_one = [3, 3, 3], [1]
    assert mean_rows(one_step_of_three_rows + one_step_of_one) == pytest.approx(2.0)
