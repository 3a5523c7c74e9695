"""How much a denoiser has in hand, in predicted seconds: when it is done, whether it has capacity
for more, and what load it reports when it pulls. Pure.

Rows are not alike: one that edits 3% of an image in 10 steps is a hundredth of one that draws a
image in 50. So whoever is done first pulls first, not whoever has the fewest rows.
"""

from collections.abc import Collection, Iterator
from math import log
from typing import Final, Protocol, TypeVar

from shared.policy.batch_key import ShapeKey
from shared.policy.row_view import Predicts, RowView, StepCost
from shared.policy.step_work import NOTHING, StepWork, total

IDLE: Final = 0
LAST: Final = 9
"""A pull tells its load as one of these levels (`Consumer.fetch`)."""
LEAST: Final = 0.5
"""Seconds: the most that a process at the first level above `IDLE` has in hand."""
RATIO: Final = 1.5
"""Each further level holds as many times more: the last one begins at 8.5."""


class StepsAhead(Protocol):
    """A row, as far as it matters when it is finished."""

    @property
    def shape(self) -> ShapeKey: ...
    @property
    def steps_left(self) -> int: ...
    @property
    def work(self) -> StepWork: ...


AnyRow = TypeVar("AnyRow", bound=StepsAhead)


def ends(rows: Collection[AnyRow], cost: Predicts) -> Iterator[tuple[AnyRow, float]]:
    """Each of `rows` with the seconds until it is finished, if they run together and nobody joins.

    Rows leave as they finish, and the steps of those that stay become shorter. Batches of several
    shapes take turns, a step each."""
    work: dict[ShapeKey, StepWork] = {}
    for row in rows:
        work[row.shape] = work.get(row.shape, NOTHING) + row.work
    steps, seconds = 0, 0.0
    for row in sorted(rows, key=lambda row: row.steps_left):
        round_seconds = sum(cost.predict(each) for each in work.values())
        seconds += (row.steps_left - steps) * round_seconds
        steps = row.steps_left
        work[row.shape] -= row.work
        yield row, seconds


def seconds_in_hand(rows: Collection[RowView], cost: StepCost) -> float:
    """Until all `rows` are finished."""
    return max((end for _, end in ends(rows, cost)), default=0.0)


def has_capacity(
    rows: Collection[RowView], coming: int, cost: StepCost, max_step_seconds: float
) -> bool:
    """Whether no step is predicted to take longer than `max_step_seconds` with one row more. That
    one, and those `coming`, of which nothing is known yet, are taken to be like the others."""
    shapes = {row.shape for row in rows} if cost.known else set()
    return all(
        _step_seconds([row.work for row in rows if row.shape == shape], coming + 1, cost)
        <= max_step_seconds
        for shape in shapes
    )


def _step_seconds(works: Collection[StepWork], more: int, cost: StepCost) -> float:
    """Of a step of `works` and of `more` like their mean."""
    return cost.predict(total(works).scaled(1.0 + more / len(works)))


def level(seconds: float, count: int) -> int:
    """What a process tells that has `count` nodes in hand, for so many `seconds`."""
    if not count:
        return IDLE
    above = 0 if seconds <= LEAST else 1 + int(log(seconds / LEAST, RATIO))
    return min(LAST, IDLE + 1 + above)
