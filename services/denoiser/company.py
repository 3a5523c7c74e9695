"""Who goes first among rows of one class, and whom it shares its step with. Pure.

What a step pays once, whoever takes part (weights read, kernels started), is what company saves;
the rest of it is each row's own, for which all others wait. Where nothing is saved, rows that take
turns are finished earlier than rows that share each step: equal ones one after another are done
after 1, 2, ... of their times, together after all of them. So as many share a step as what it saves
is worth, and the shortest go first (Smith's rule), unless others have waited for long.

Let `b` be what a row's step takes alone, `a` by how much it makes the others' step longer, and let
`n` of `N` rows in hand take part already. If it joins, all N wait for `a` longer; if not, it and
those behind it, N - n rows, wait for `b` at some other time. As many as are in hand are taken to
come meanwhile, and to wait either way. So it had better join if `2N·a < (2N - n)·b`.
"""

from collections.abc import Sequence
from typing import Final

from services.denoiser.views import RowView, StepCost
from services.denoiser.work import StepWork

SHORTNESS: Final = 4.0
"""Seconds of waiting that outweigh one second more of work: the more, the sooner are short rows
done, and the later long ones."""


def in_order(rows: Sequence[RowView], patience: int, cost: StepCost) -> list[RowView]:
    """The most urgent first: by class; then by what is left to do, against how long they have
    waited; then by arrival. A row that runs becomes more urgent than those that wait, so turns are
    not taken step by step."""

    def place(row: RowView) -> tuple[int, float, int]:
        left = row.steps_left * cost.predict(row.work)
        return row.rank(patience), SHORTNESS * left - row.waited, row.arrival

    return sorted(rows, key=place)


def sociable(rows: Sequence[RowView], cost: StepCost) -> bool:
    """Whether all that fit share each step of `rows`, whatever that saves: it is not known yet; or
    deadlines decide who is there at all (`deadlines.py`); or they wait for others within a step,
    which they can do together."""
    return not cost.known or any(row.seconds_left is not None or row.asks for row in rows)


def pays(taking: StepWork, count: int, row: RowView, in_hand: int, cost: StepCost) -> bool:
    """Whether `row` had better take part in a step of `count` others, which compute `taking`, of
    `in_hand` rows altogether. What was never tried is worth trying."""
    together = taking + row.work
    if cost.untried(together):
        return True
    alone = cost.predict(row.work)
    saved = alone - (cost.predict(together) - cost.predict(taking))
    return count * alone < 2 * in_hand * saved
