"""Who goes first, and who shares a step: by what is saved, and what it costs the others."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy.batch_key import ShapeKey
from shared.policy.batching import SHORTNESS, in_order
from shared.policy.cost_model import FEW, FIRST, MANY, Cell, CostModel
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits, RoundRobinState, schedule_step
from shared.policy.step_work import StepWork, total

SHAPE = ShapeKey(4, 10, 10, (77,))
LIMITS = Limits(max_step_seconds=1e9)


def cost(saved: float, cells: int = MANY + 1) -> CostModel:
    """A row's step takes a second alone, of which `saved` is shared by all; so many sizes were
    measured, without noise."""
    measured = {str(size): Cell((1.0,), FEW, (0.0, 0.0, 0.0, 0.0)) for size in range(cells)}
    return CostModel(
        coefficients=(saved, (1.0 - saved) / 100, 0.0, 0.0, 0.0), cells=measured, doubted=0.0
    )


def row(arrival: int, steps: int = 10, **changes: object) -> RowView:
    return replace(RowView(arrival, SHAPE, 1, "standard", steps_left=steps), **changes)  # type: ignore[arg-type]


def running(rows: Sequence[RowView], model: CostModel) -> tuple[int, ...]:
    return schedule_step(rows, [], LIMITS, model, RoundRobinState()).runs


def finished(rows: Sequence[RowView], model: CostModel, together: bool = False) -> list[float]:
    """When each is, if nobody else comes; `together`: all share each step."""
    now, ends, left = 0.0, [], list(rows)
    while left:
        runs = {r.arrival for r in left} if together else set(running(left, model))
        seconds = model.predict(total(r.work for r in left if r.arrival in runs))
        now += seconds
        left = [
            replace(r, steps_left=r.steps_left - (r.arrival in runs), waited=r.waited + seconds)
            for r in left
        ]
        ends += [now] * sum(not r.steps_left for r in left)
        left = [r for r in left if r.steps_left]
    return ends


def test_where_company_saves_nothing_rows_take_turns_and_nobody_is_later_for_it() -> None:
    rows = [row(k) for k in range(4)]
    ends = finished(rows, cost(0.0))
    assert ends == pytest.approx([10.0, 20.0, 30.0, 40.0])
    assert finished(rows, cost(0.0), together=True) == pytest.approx([40.0] * 4)


def test_where_company_saves_half_of_a_step_and_more_all_share_it() -> None:
    assert running([row(k) for k in range(16)], cost(0.5)) == tuple(range(16))


def test_as_many_share_a_step_as_gain_by_it() -> None:
    assert [len(running([row(k) for k in range(16)], cost(s / 10))) for s in (0, 1, 2, 3)] == [
        1,
        4,
        7,
        10,
    ]


def test_the_shortest_goes_first_and_then_among_equals_the_first_come() -> None:
    assert running([row(1, 10), row(2, 3), row(3, 3)], cost(0.0)) == (2,)
    part = StepWork.of(1, 20, 100)
    assert running([row(1, 10), row(2, 10, part=part)], cost(0.0)) == (2,)


def test_who_has_waited_for_long_goes_before_shorter_ones() -> None:
    much, little = row(1, 10), row(2, 5)
    assert running([much, little], cost(0.0)) == (2,)
    assert running([replace(much, waited=SHORTNESS * 5 + 1), little], cost(0.0)) == (1,)


def test_turns_are_not_taken_step_by_step() -> None:
    rows, model, order = [row(1, 5), row(2, 5)], cost(0.0), []
    while rows:
        [runs] = running(rows, model)
        order.append(runs)
        rows = [
            replace(r, steps_left=r.steps_left - (r.arrival == runs), waited=r.waited + 1.0)
            for r in rows
        ]
        rows = [r for r in rows if r.steps_left]
    assert order == [1] * 5 + [2] * 5


def test_a_class_goes_before_another_however_short_that_is() -> None:
    rows = [row(1, 1, service_class="batch"), row(2, 50, service_class="interactive")]
    assert [r.arrival for r in in_order(rows, 50, cost(0.0))] == [2, 1]


def test_while_little_is_known_all_share_a_step_so_that_it_is_learnt_what_that_saves() -> None:
    rows = [row(k) for k in range(3)]
    assert running(rows, CostModel(coefficients=(0.0, 0.01, 0.0, 0.0, 0.0))) == (0, 1, 2)


def test_where_predictions_are_off_by_more_than_what_is_at_stake_all_share_a_step() -> None:
    rows = [row(k) for k in range(4)]
    for doubt, together in ((0.02, 1), (0.06, 4)):
        model = msgspec.structs.replace(cost(0.0), doubted=doubt)
        assert len(running(rows, model)) == together


def test_a_size_that_was_never_measured_is_tried_with_one_row_more_at_a_time() -> None:
    rows, model = [row(k) for k in range(9)], cost(0.0, cells=0)
    sizes = []
    for _ in range(40):
        runs = running(rows, model) if model.known else (0,)
        sizes.append(len(runs))
        model = model.observe(total(rows[k].work for k in runs), float(len(runs)))
    tried = FIRST + 1
    assert sizes == [1] * tried + [2] * tried + [1] * (40 - 2 * tried)


def test_deadlines_and_what_is_waited_for_within_a_step_make_sharing_worth_it() -> None:
    assert running([row(1, seconds_left=1e6), row(2)], cost(0.0)) == (1, 2)
    assert running([row(1, asks=True), row(2)], cost(0.0)) == (1, 2)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 100)), min_size=1, max_size=8),
    st.floats(0.0, 1.0),
)
def test_rows_are_finished_sooner_in_the_mean_than_if_all_shared_each_step(
    works: list[tuple[int, int]], saved: float
) -> None:
    rows = [
        row(k, steps, part=StepWork.of(1, tokens, 100)) for k, (steps, tokens) in enumerate(works)
    ]
    model = cost(saved)
    ours, theirs = (fmean(finished(rows, model, together)) for together in (False, True))
    assert ours <= 1.1 * theirs  # what comes meanwhile is allowed for, and does not come
