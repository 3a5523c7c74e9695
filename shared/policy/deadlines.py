"""Which rows can still be in time, and whether one more would make others late. Pure.

Users say by when an image is of use. A batch that takes everybody in makes everybody late: each
row more makes every step longer. So a row joins others only if all that are in time stay so,
and one whose deadline would pass even if it were alone is given up at once, for the good of the
next. In between, where what follows denoising must be quicker than usual, a row has its chance if
nobody else who has a deadline is there: under a burst, such rows would fill the batch, and make
each other late for good.

Predictions change, and then rows that share a step may all be late together: some of them step
aside, so that the others are not. So do rows without a deadline, for as long as they have patience.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from shared.policy.batch_key import ShapeKey
from shared.policy.reported_load import ends
from shared.policy.row_view import RANK, Predicts, RowView, StepCost
from shared.policy.step_work import StepWork, total

SPARE: Final = 0.2
"""Share by which predictions may be wrong before a row that yields makes another one late."""
YIELDS: Final = 4
"""Steps for each that is left of it that a row without a deadline yields to those that have to be
finished,"""
YIELD_STEPS: Final = 100
"""and so many more."""


def urgency(row: RowView, cost: StepCost) -> tuple[bool, float]:
    """Earliest deadline first among those that are in time even if predictions are as wrong as they
    were of late; then those that have a bare chance, which any mistake would waste."""
    if row.seconds_left is None:
        return False, float("inf")
    bare = _alone(row, cost) * (1.0 + cost.doubt) > row.seconds_left
    return bare, row.seconds_left


def hurried(rows: Sequence[RowView], cost: StepCost) -> list[RowView]:
    """`rows`, of which those that may be late, and will be, are wanted as soon as they can be."""
    return [
        replace(row, seconds_left=(1.0 + SPARE) * _alone(row, cost))
        if row.lenient and _is_late_alone(row, cost)
        else row
        for row in rows
    ]


def infeasible(rows: Sequence[RowView], cost: StepCost) -> tuple[int, ...]:
    """Arrivals of those of `rows` that are given up: their deadline would pass even if they had
    every step to themselves from now on, and these were as quick as the quickest of late.

    One row always goes on, unless its deadline is over: a denoiser that is otherwise idle has
    nothing better to do, and would never learn that its steps have become quicker."""
    strict = [row for row in rows if not row.alone and not row.lenient]
    late = [row for row in strict if _slack(row, cost) < 0.0]
    if len(late) == len(rows):
        best = max(late, key=lambda row: _slack(row, cost), default=None)
        late = [row for row in late if row is not best or _is_over(row)]
    return tuple(row.arrival for row in late)


def _slack(row: RowView, cost: StepCost) -> float:
    """Seconds that are left after the quickest end of `row`."""
    if row.seconds_left is None:
        return float("inf")
    return row.seconds_left + row.grace - row.steps_left * cost.least(row.work)


def _is_over(row: RowView) -> bool:
    return row.seconds_left is not None and row.seconds_left + row.grace <= 0.0


def keep_in_time(
    rows: Sequence[RowView], cost: StepCost, patience: int
) -> tuple[list[RowView], list[RowView]]:
    """Those of `rows` that go on, and those that step aside for them: where some would be late
    together, as many as are in time without the others, those that are done soonest first, and
    those that may be late last. If none is, the one that is least late goes on. Those that have no
    deadline go on if that makes nobody late, or if they have waited for long (see `yields`)."""
    yielding = [row for row in rows if yields(row, patience)]
    if not cost.known or not _late(rows, cost, SPARE if yielding else 0.0):
        return list(rows), []
    staying = [row for row in rows if row.seconds_left is None and not yields(row, patience)]
    staying += [row for row in rows if row.seconds_left is not None and row.alone]
    hurried = sorted(_hurried(rows), key=lambda r: (r.lenient, _alone(r, cost)))
    aside: list[RowView] = []
    for row in hurried:
        (aside if _late((*staying, row), cost) else staying).append(row)
    if aside and len(aside) == len(hurried):
        staying.append(aside.pop(aside.index(max(aside, key=lambda row: _slack(row, cost)))))
    for row in sorted(yielding, key=lambda row: (-row.passed_over, row.arrival)):
        more_late = not _late((*staying, row), cost, SPARE) <= _late(staying, cost)
        (aside if more_late else staying).append(row)
    return staying, aside


def yields(row: RowView, patience: int) -> bool:
    """Whether it steps aside where one that has a deadline would be late: it has none, and was not
    passed over for so long that it would never end."""
    patient = row.passed_over >= len(RANK) * patience
    return row.seconds_left is None and not row.alone and not patient


def overdue(row: RowView) -> bool:
    """Whether a row without a deadline has yielded for long enough: nobody shall be promised
    anything that would delay it further."""
    return row.seconds_left is None and row.yielded > YIELDS * row.steps_left + YIELD_STEPS


def due(row: RowView, end: float, now: float) -> float | None:
    """When `row`, which is predicted to be finished in `end` seconds, has to be: one that has no
    deadline, and was passed over for long, when it is predicted to be. None: it yields."""
    if row.seconds_left is not None:
        return now + row.seconds_left
    return now + end if overdue(row) else None


def _hurried(rows: Sequence[RowView]) -> list[RowView]:
    return [row for row in rows if row.seconds_left is not None and not row.alone]


def _alone(row: RowView, cost: Predicts) -> float:
    """Seconds that it takes by itself."""
    return row.steps_left * cost.predict(row.work)


def would_delay(present: Sequence[RowView], row: RowView, cost: StepCost) -> bool:
    """Whether `row`, or any of `present`, that would be in time without the other would be late
    with it; or `row` is late already, and not the only one that has a deadline. Of all together
    steps count as slow ones: who joins on the word of quicker ones may waste what all of them have
    been given."""
    if all(other.seconds_left is None for other in (*present, row)):
        return False
    slow = _Slow(cost)
    if _is_late_alone(row, slow):
        return any(other.seconds_left is not None for other in present)
    spare = SPARE if row.seconds_left is None else 0.0
    return not _late((*present, row), slow, spare) <= _late(present, cost)


def has_time(rows: Sequence[RowView], coming: int, cost: StepCost) -> bool:
    """Whether one row more would make none of `rows` late: it had better wait where somebody else
    can have it. That one, and those `coming`, of which nothing is known yet, are taken to be like
    the others, and to have no deadline themselves."""
    hurried = [row for row in rows if row.seconds_left is not None]
    if not hurried or not cost.known:
        return True
    longest = max(rows, key=lambda row: row.steps_left)
    works: dict[ShapeKey, list[StepWork]] = {}
    for row in rows:
        works.setdefault(row.shape, []).append(row.work)
    slow, late = _Slow(cost), _late(rows, cost)
    return all(
        _late((*rows, *_like(longest, shape, each, coming + 1)), slow) <= late
        for shape, each in works.items()
    )


def _like(
    longest: RowView, shape: ShapeKey, works: Sequence[StepWork], count: int
) -> list[RowView]:
    """So many rows more of a shape, each of the mean work of those that are there."""
    work = total(works).scaled(1.0 / len(works))
    return [
        replace(longest, arrival=-1 - k, shape=shape, part=work, seconds_left=None)
        for k in range(count)
    ]


class _Slow:
    """`cost` when steps are slow."""

    def __init__(self, cost: StepCost) -> None:
        self._cost, self._times = cost, cost.slowness

    def predict(self, work: StepWork) -> float:
        return self._times * self._cost.predict(work)


def _is_late_alone(row: RowView, cost: Predicts) -> bool:
    return row.seconds_left is not None and _alone(row, cost) > row.seconds_left


def _late(rows: Collection[RowView], cost: Predicts, spare: float = 0.0) -> set[int]:
    """Arrivals of the rows that miss their deadline if `rows` run together and nobody joins, and
    all takes longer than predicted by a share of `spare`."""
    return {
        row.arrival
        for row, seconds in ends(rows, cost)
        if row.seconds_left is not None and seconds * (1.0 + spare) > row.seconds_left
    }
