from dataclasses import replace
from itertools import pairwise

import pytest

from shared.policy.batch_key import ShapeKey
from shared.policy.cost_model import CostModel
from shared.policy.reported_load import (
    IDLE,
    LAST,
    LEAST,
    RATIO,
    ends,
    has_capacity,
    level,
    seconds_in_hand,
)
from shared.policy.row_view import RowView
from shared.policy.step_work import StepWork

SHAPE, OTHER = ShapeKey(4, 16, 16, (77,)), ShapeKey(4, 8, 8, (77,))


class Cost:
    """A step takes 10 ms, 10 ms more for each 100 positions, and 1 ms for each KB loaded."""

    known = True
    doubt = 0.0
    slowness = 1.0

    def predict(self, work: StepWork) -> float:
        return 0.01 + 1e-4 * work.tokens + 1e-6 * work.loaded if work.tokens else 0.0

    def least(self, work: StepWork) -> float:
        return self.predict(work)

    def untried(self, work: StepWork) -> bool:
        return False


COST = Cost()


def edit(arrival: int, steps: int, computed: int = 100, shape: ShapeKey = SHAPE) -> RowView:
    part = StepWork.of(1, computed, shape.tokens)
    return RowView(arrival, shape, 1, "standard", steps_left=steps, part=part)


def test_a_row_is_computed_in_full_unless_it_says_otherwise() -> None:
    assert RowView(1, SHAPE, 2, "standard").work == StepWork.full(2, 256)
    assert edit(1, 5, 30).work == StepWork(30, 30 * 256)


def test_steps_become_shorter_as_rows_leave() -> None:
    found = {row.arrival: end for row, end in ends([edit(1, 10), edit(2, 30)], COST)}
    assert found[1] == pytest.approx(10 * 0.03)
    assert found[2] == pytest.approx(10 * 0.03 + 20 * 0.02)


def test_batches_of_several_shapes_take_turns() -> None:
    rows = [edit(1, 10), edit(2, 10, shape=OTHER)]
    assert seconds_in_hand(rows, COST) == pytest.approx(10 * 2 * 0.02)


def test_few_large_rows_are_more_than_many_small_ones() -> None:
    small = [edit(n, 10, 10) for n in range(4)]
    assert seconds_in_hand(small, COST) < seconds_in_hand([edit(1, 40, 250)], COST)
    assert seconds_in_hand([], COST) == 0.0


def test_what_is_loaded_counts() -> None:
    loads = replace(edit(1, 10), part=StepWork.of(1, 100, 256, loaded=10_000))
    assert seconds_in_hand([loads], COST) == pytest.approx(10 * 0.03)


def test_a_row_is_pulled_only_if_the_step_stays_within_budget() -> None:
    rows = [edit(1, 5, 100), edit(2, 5, 300)]  # one like their mean adds 20 ms to 50
    assert has_capacity(rows, 0, COST, 0.07)
    assert not has_capacity(rows, 0, COST, 0.069)
    assert not has_capacity(rows, 1, COST, 0.07)
    assert has_capacity(rows, 1, COST, 0.09)


def test_masks_decide_how_many_rows_there_is_room_for() -> None:
    def most(computed: int) -> int:
        rows: list[RowView] = []
        while not rows or has_capacity(rows, 0, COST, 0.11):
            rows.append(edit(len(rows), 5, computed))
        return len(rows)

    assert (most(20), most(250)) == (50, 4)


def test_who_has_nothing_in_hand_or_knows_no_cost_has_room() -> None:
    assert has_capacity([], 5, COST, 0.0)
    assert has_capacity([edit(1, 5)], 5, CostModel(), 0.0)


def test_a_process_without_work_comes_before_all_others() -> None:
    assert level(0.0, 0) == IDLE < level(0.0, 1) == level(LEAST, 1)


def test_levels_grow_with_the_seconds_up_to_the_last() -> None:
    levels = [level(LEAST * RATIO**n + 0.01, 1) for n in range(10)]
    assert all(b - a == 1 or b == LAST for a, b in pairwise(levels))
    assert levels[-1] == LAST == level(1e9, 1)


@pytest.mark.parametrize("rows", range(2, 25))
def test_whoever_has_half_more_rows_than_another_process_pulls_after_it(rows: int) -> None:
    """Levels that doubled let two processes of sixteen rows stay at five and eleven for ever."""
    each = 0.3
    assert level(rows * each, rows) < level(1.55 * rows * each, 2 * rows)
