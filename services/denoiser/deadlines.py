"""Which rows can still be in time, and whether one more would make others late. Pure.

Users say by when a picture is of use. A batch that takes everybody in makes everybody late: each
row more makes every step longer. So a row with company joins only if all that are in time stay so,
and one whose deadline would pass even if it were alone is given up at once, for the good of the
next. In between, where what follows denoising must be quicker than usual, a row has its chance if
nobody else who has a deadline is there: under a burst, such rows would fill the batch, and make
each other late for good.
"""

from collections.abc import Collection, Sequence

from services.denoiser.load import ends
from services.denoiser.views import RowView, StepCost


def is_hopeless(row: RowView, cost: StepCost) -> bool:
    """Its deadline would pass even if it had every step to itself from now on."""
    return _is_late_alone(row, cost, row.margin)


def would_delay(present: Sequence[RowView], row: RowView, cost: StepCost) -> bool:
    """Whether `row`, or any of `present`, that would be in time without the other would be late
    with it; or `row` is late already, and not the only one that has a deadline."""
    if all(other.seconds_left is None for other in (*present, row)):
        return False
    if _is_late_alone(row, cost):
        return any(other.seconds_left is not None for other in present)
    return not _late((*present, row), cost) <= _late(present, cost)


def _is_late_alone(row: RowView, cost: StepCost, grace: float = 0.0) -> bool:
    if row.seconds_left is None:
        return False
    seconds = row.steps_left * cost.predict(row.work)
    return seconds > row.seconds_left + grace


def _late(rows: Collection[RowView], cost: StepCost) -> set[int]:
    """Arrivals of the rows that miss their deadline if `rows` run together and nobody joins."""
    return {
        row.arrival
        for row, seconds in ends(rows, cost)
        if row.seconds_left is not None and seconds > row.seconds_left
    }
