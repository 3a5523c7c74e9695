"""What one process has promised, against `ends`, which knows all rows from the beginning."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy.batch_key import ShapeKey
from shared.policy.release.jobs import Stage
from shared.policy.release.load import ProcessLoad, RowInHand
from shared.policy.release.timeline import Timeline
from shared.policy.reported_load import ends
from shared.policy.step_work import StepWork
from tests.shared.policy.release.fleet import COST, DENOISE, SHAPE, WORK

OTHER = ShapeKey(4, 8, 8, (77,))
ROWS = st.builds(
    RowInHand,
    st.integers(1, 30),
    st.builds(StepWork.full, st.integers(1, 2), st.sampled_from((64, 256))),
    st.sampled_from((SHAPE, OTHER)),
    st.just(1e6),
)


def load(rows: list[RowInHand], max_rows: int = 64) -> ProcessLoad:
    return ProcessLoad("d", DENOISE, COST, 0.0, rows, count=len(rows), max_rows=max_rows)


def stage(row: RowInHand) -> Stage:
    return Stage(DENOISE, row.work, row.steps_left, 1, row.shape)


@given(st.lists(ROWS, max_size=8), ROWS)
@settings(max_examples=30, deadline=None)
def test_a_row_more_ends_when_it_would_if_all_had_been_there_at_once(
    rows: list[RowInHand], one: RowInHand
) -> None:
    timeline = Timeline(load(rows), 0.0)
    fit = timeline.fit(stage(one), 0.0, inf)
    assert fit is not None
    expected = [end for row, end in ends([*rows, one], COST) if row is one]
    running = sum(COST.predict(work) for work in _by_shape(rows))
    assert fit.end - running == pytest.approx(expected[0])
    timeline.place(stage(one), fit, fit.end)
    assert timeline.seconds - running <= max(e for _, e in ends([*rows, one], COST)) + 1e-9


def _by_shape(rows: list[RowInHand]) -> list[StepWork]:
    found: dict[ShapeKey, StepWork] = {}
    for row in rows:
        found[row.shape] = found.get(row.shape, StepWork(0, 0)) + row.work
    return list(found.values())


def test_the_running_step_is_waited_for() -> None:
    present = RowInHand(10, WORK, SHAPE, 100.0)
    fit = Timeline(load([present]), 0.0).fit(Stage(DENOISE, WORK, 1, 1, SHAPE), 0.0, inf)
    assert fit is not None
    assert fit.begin == pytest.approx(COST.predict(WORK))


def test_a_full_batch_is_joined_when_somebody_leaves() -> None:
    rows = [RowInHand(5, WORK, SHAPE, 100.0), RowInHand(9, WORK, SHAPE, 100.0)]
    fit = Timeline(load(rows, max_rows=2), 0.0).fit(Stage(DENOISE, WORK, 3, 1, SHAPE), 0.0, inf)
    assert fit is not None
    assert fit.start == 5


def test_rows_without_a_deadline_are_no_reason_to_be_late() -> None:
    rows = [RowInHand(50, WORK, SHAPE) for _ in range(8)]
    wanted = Stage(DENOISE, WORK, 10, 1, SHAPE)
    fit = Timeline(load(rows), 0.0).fit(wanted, 0.0, inf)
    assert fit is not None
    step = COST.predict(WORK)
    assert fit.end == pytest.approx(10 * step + COST.fixed + 8 * COST.unit)


def test_a_report_ages() -> None:
    rows = [RowInHand(10, WORK, SHAPE, 100.0)]
    step = COST.predict(WORK)
    assert Timeline(load(rows), 4.5 * step).seconds == pytest.approx(5.5 * step)
    assert Timeline(load(rows), 99.0 * step).seconds == 0.0


def test_what_cannot_be_in_time_any_more_holds_up_nobody() -> None:
    newcomer = Stage(DENOISE, WORK, 5, 1, SHAPE)
    hopeless = RowInHand(10, WORK, SHAPE, due=0.001)
    assert Timeline(load([hopeless]), 0.0).fit(newcomer, 0.0, 9.0)
    seconds = 10 * (COST.predict(WORK + WORK) - COST.predict(WORK))  # that its steps take at least
    perhaps = RowInHand(10, WORK, SHAPE, due=0.9 * seconds)
    found = Timeline(load([perhaps]), 0.0).fit(newcomer, 0.0, 9.0)
    assert found is not None
    assert found.start == 10  # steps may be quicker than they are taken to be
