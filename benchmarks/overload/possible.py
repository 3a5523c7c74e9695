"""The most requests that anybody could have in time, with the costs of this fleet. Pure.

An upper bound. A step of a denoiser takes `fixed + per_unit * units` seconds, of which a row pays
its own units, and its share of what is fixed. That share is smallest in full batches; but in these
a step is long, and a row has to take all of its steps until it is due. The share is convex in the
size of the batch, so that a row pays least if all its steps are as long as they may be at most
(Jensen's inequality). What rows pay adds up to the time for which denoisers are busy. So of a set
of rows that are all in time, those that come and are due within any interval pay no more than all
denoisers have in it (the processor demand criterion, Baruah, Rosier & Howell 1990).

The cores of the machine have to do more in that interval: each row has its prompts encoded and its
image decoded, and each request that comes is read and answered, with an image or a refusal. What
that takes of a core is the same for whoever decides.

The largest set of rows with these properties is bounded by its linear relaxation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

FloatArray = NDArray[np.float64]

ENDS: Final = 64
"""Beginnings, and ends, of the intervals that are looked at: the bound holds for any number."""
ROUNDING: Final = 1e-3
"""Requests by which the solver may be off."""


@dataclass(frozen=True, slots=True)
class Costs:
    """A step of each of `denoisers`, side by side: seconds of a core for rows of so many units
    together. `picture`: seconds of a core for an image beside its steps, `request`: for a request
    whatever becomes of it; all share `cores`."""

    fixed: float
    per_unit: float
    denoisers: int
    max_rows: int
    cores: float = inf
    picture: float = 0.0
    request: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """It may begin at `ready`, and has to be finished at `due`."""

    ready: float
    due: float
    steps: int
    units: int


def least_seconds(row: Row, costs: Costs) -> float | None:
    """Of a denoiser's time, that the row takes if it is in time at all."""
    longest = (row.due - row.ready) / row.steps
    if longest < costs.fixed + costs.per_unit * row.units:
        return None
    most = float(row.units * costs.max_rows)
    if costs.per_unit > 0.0:
        most = min(most, (longest - costs.fixed) / costs.per_unit)
    return row.steps * row.units * (costs.per_unit + costs.fixed / most)


def most_in_time(rows: Sequence[Row], costs: Costs) -> int:
    """No schedule has more of `rows` in time."""
    priced = [(row, s) for row in rows if (s := least_seconds(row, costs)) is not None]
    if not priced:
        return 0
    every, possible = _Times.of(rows), _Times.of([row for row, _ in priced])
    steps = np.array([s for _, s in priced])
    inside, room = [], []
    for begin, end in _intervals(possible):
        within = possible.within(begin, end)
        answers = costs.request * float(every.within(begin, end).sum())
        for seconds, most in (
            (steps, costs.denoisers * (end - begin)),
            (steps + costs.picture, max(0.0, costs.cores * (end - begin) - answers)),
        ):
            paid = np.where(within, seconds, 0.0)
            if paid.sum() > most:
                inside.append(paid)
                room.append(most)
    if not inside:
        return len(priced)
    found = linprog(-np.ones(len(priced)), csr_array(np.array(inside)), room, bounds=(0.0, 1.0))
    return int(-found.fun + ROUNDING)


@dataclass(frozen=True, slots=True)
class _Times:
    """When rows may begin, and have to be finished."""

    ready: FloatArray
    due: FloatArray

    @staticmethod
    def of(rows: Sequence[Row]) -> "_Times":
        return _Times(np.array([row.ready for row in rows]), np.array([row.due for row in rows]))

    def within(self, begin: float, end: float) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self.ready >= begin) & (self.due <= end)
        return found


def _intervals(times: _Times) -> Iterator[tuple[float, float]]:
    ends = _spread(times.due)
    for begin in _spread(times.ready):
        for end in ends[ends > begin]:
            yield float(begin), float(end)


def _spread(times: FloatArray) -> FloatArray:
    """About `ENDS` of them, the first and the last among them."""
    ordered = np.unique(times)
    places = np.linspace(0, len(ordered) - 1, min(ENDS, len(ordered)))
    chosen: FloatArray = ordered[np.unique(places.round().astype(int))]
    return chosen
