"""Who goes first among rows of one class, and whom it shares its step with. Pure.

What a step pays once, whoever takes part (weights read, kernels started), is what sharing a step
saves; the rest of it is each row's own, for which all others wait. Where nothing is saved, rows
that take turns are finished earlier than rows that share each step: equal ones one after another
are done after 1, 2, ... of their times, together after all of them. So as many share a step as what
it saves is worth, and the shortest go first (Smith's rule), unless others have waited for long.

Let `b` be what a row's step takes alone, `a` by how much it makes the others' step longer, and let
`n` of `N` rows in hand take part already. If it joins, all N wait for `a` longer; if not, it and
those behind it, N - n rows, wait for `b` at some other time. As many as are in hand are taken to
come meanwhile, and to wait either way. So it had better join if `2N·a < (2N - n)·b`.

With few rows in hand that rule would give away up to a seventh of what the denoiser can draw, for
the sake of the first row. So one more joins as well if a full batch would draw more by `SPARED`
than fewer rows do, or might, for all that is known: where predictions are off by as much, what they
say of so small a difference is noise, and rows that it keeps apart measure nothing that would
correct it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.policy.row_view import RowView, StepCost
from shared.policy.step_work import StepWork, total

SHORTNESS: Final = 4.0
"""Seconds of waiting that outweigh one second more of work: the more, the sooner are short rows
done, and the later long ones."""

SPARED: Final = 0.05
"""Share of the throughput of a full batch that may be given up for the mean latency."""


def in_order(rows: Sequence[RowView], patience: int, cost: StepCost) -> list[RowView]:
    """The most urgent first: by class; then by what is left to do, against how long they have
    waited; then by arrival. A row that runs becomes more urgent than those that wait, so turns are
    not taken step by step."""

    def place(row: RowView) -> tuple[int, float, int]:
        left = row.steps_left * cost.predict(row.work)
        return row.rank(patience), SHORTNESS * left - row.waited, row.arrival

    return sorted(rows, key=place)


def always_batch(rows: Sequence[RowView], cost: StepCost) -> bool:
    """Whether all that fit share each step of `rows`, whatever that saves: it is not known yet; or
    deadlines decide who is there at all (`deadlines.py`); or they wait for others within a step,
    which they can do together."""
    return not cost.known or any(row.seconds_left is not None or row.asks for row in rows)


@dataclass(frozen=True, slots=True)
class Shared:
    """A step of some rows, by prediction."""

    work: StepWork
    rows: int
    seconds: float
    apart: float
    """Seconds of a step of each by itself, together."""

    @staticmethod
    def of(rows: Sequence[RowView], cost: StepCost) -> "Shared":
        work, apart = total(row.work for row in rows), sum(cost.predict(r.work) for r in rows)
        return Shared(work, len(rows), cost.predict(work), apart)

    def joined(self, row: RowView, cost: StepCost) -> "Shared":
        """With `row` as well."""
        work, apart = self.work + row.work, self.apart + cost.predict(row.work)
        return Shared(work, self.rows + 1, cost.predict(work), apart)


def worth_batching(
    taking: Shared, joined: Shared, full: Shared, in_hand: int, doubt: float
) -> bool:
    """Whether one more had better take part in a step, so that `taking` becomes `joined`, of
    `in_hand` rows altogether; `full`: the largest step there could be; `doubt`: the relative error
    of the predictions."""
    alone = joined.apart - taking.apart
    saved = alone - (joined.seconds - taking.seconds)
    if taking.rows * alone < 2 * in_hand * saved:
        return True
    return full.seconds / full.apart < (1.0 - SPARED + doubt) * taking.seconds / taking.apart
