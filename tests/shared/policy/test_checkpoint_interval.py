"""When a row is checkpointed."""

from hypothesis import given
from hypothesis import strategies as st

from shared.policy.checkpoint_interval import NEVER, Interval

STEPS, SECONDS = st.integers(1, 50), st.floats(0.0, 100.0)


@given(STEPS, SECONDS, st.integers(0, 100), st.floats(0.0, 200.0))
def test_both_the_steps_and_their_time_have_to_be_over(
    every: int, least: float, steps: int, seconds: float
) -> None:
    over = Interval(every, least).over(steps, seconds)
    assert over == (steps >= every and seconds >= least)


@given(STEPS, SECONDS)
def test_a_close_interval_does_not_wait_for_the_time(every: int, least: float) -> None:
    close = Interval(every, least).close
    assert close.over(every, 0.0)
    assert not close.over(every - 1, 1000.0)


def test_no_steps_at_all_means_never() -> None:
    assert not NEVER.over(1000, 1000.0)
    assert not NEVER.close.over(1000, 1000.0)
