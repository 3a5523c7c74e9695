"""What pools remember of one question is no reason to answer the next one otherwise."""

from collections.abc import Sequence
from math import inf
from typing import Final

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shared.policy.release.jobs import ONE, Component, Stage
from shared.policy.release.load import ProcessLoad, RowInHand
from shared.policy.release.pools import BatchPool
from shared.policy.release.serial_pool import SerialPool
from tests.shared.policy.release.fleet import COST, DENOISE, SHAPE, WORK, Linear

QUICK = settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
NODE = 0.5
ENCODE: Final[Component] = ("encode", "m")


def serial(processes: int, seconds: float) -> SerialPool:
    cost = Linear(NODE, 0.0)
    loads = [ProcessLoad(str(k), ENCODE, cost, 0.0, seconds=seconds) for k in range(processes)]
    return SerialPool(loads, 0.0)


@given(
    st.integers(1, 3),
    st.sampled_from((0.0, 1.0)),
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40)), max_size=30),
)
@QUICK
def test_serial_work_fits_if_no_deadline_has_more_before_it_than_can_be_done(
    processes: int, ahead: float, asked: list[tuple[int, int]]
) -> None:
    pool = serial(processes, ahead)
    promised: list[tuple[float, float]] = []
    for rows, quarter in asked:
        due = quarter / 4
        wanted = [*promised, (due, rows * NODE)]
        later = {other for other, _ in wanted if other >= due}
        expected = all(
            processes * ahead + sum(seconds for other, seconds in wanted if other <= by)
            <= processes * by
            for by in later
        )
        stage = Stage(ENCODE, ONE, rows=rows)
        assert pool.fits(stage, due) is expected
        if expected:
            pool.place(stage, due)
            promised = wanted


def batch(placed: Sequence[tuple[Stage, float]] = ()) -> BatchPool:
    """Three processes, of which one is full; `placed` are promised."""
    rows = [[RowInHand(8, WORK, SHAPE, 1.2)] * k for k in (1, 2, 4)]
    pool = BatchPool(
        [
            ProcessLoad(str(k), DENOISE, COST, 0.0, each, 0.8, len(each), 4)
            for k, each in enumerate(rows)
        ],
        0.0,
    )
    for stage, due in placed:
        assert pool.place(stage, 0.0, due) is not None
    return pool


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from((1.0, 1.3, 2.0, 4.0))), max_size=25))
@QUICK
def test_an_answer_does_not_depend_on_what_was_refused_before(
    asked: list[tuple[int, float]],
) -> None:
    pool, placed = batch(), list[tuple[Stage, float]]()
    for tens, factor in asked:
        stage = Stage(DENOISE, WORK, 10 * tens, 1, SHAPE)
        due = factor * stage.steps * COST.predict(WORK)
        found = pool.place(stage, 0.0, due)
        assert found == batch(placed).place(stage, 0.0, due)
        if found is not None:
            placed.append((stage, due))


def test_a_row_that_may_be_late_has_a_place_somewhere() -> None:
    stage = Stage(DENOISE, WORK, 10, 1, SHAPE)
    assert batch().place(stage, 0.0, 0.1) is None
    assert batch().place(stage, 0.0, inf) is not None
