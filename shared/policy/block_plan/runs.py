"""Equal blocks in a row, and all ways to compute them that can be best. Pure, no torch.

A model has few kinds of blocks, so plans are made from runs of equal ones: how many take each of
their options decides, for in which order they are best taken is known (Johnson 1954, "Optimal two-
and three-stage production schedules with setup times included").

A stretch of blocks that starts with its loads possible from `a` on and its computation from `b` on
ends at `max(b + s, a + t)`: s, all its computation; t, its end if its loads alone hold it up; and
the loader is done at `a + l`.
"""

from functools import lru_cache
from math import comb
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_COUNTS: Final = 1024
"""Ways to distribute the options over a run of equal blocks; a longer run is cut."""


class Option(NamedTuple):
    """One way to compute a block; seconds, or any other unit of time."""

    load: float
    compute: float


Block = tuple[Option, ...]
"""At least one option."""


class Run(NamedTuple):
    """Equal blocks in a row, with every way to distribute `kinds` over them.

    `kinds`: indices of the options that can be best, in the order in which they are taken."""

    kinds: tuple[int, ...]
    counts: Integers
    """(kinds, ways)"""
    s: Reals
    l: Reals  # noqa: E741 (as in the docstring above)
    t: Reals


def runs(block: Block, length: int) -> list[Run]:
    """Of `length` blocks, one after another."""
    kinds = _in_order(block)
    longest = next(n for n in range(length, 0, -1) if _ways(n, len(kinds)) <= MAX_COUNTS or n == 1)
    lengths = [longest] * (length // longest) + [length % longest] * (length % longest > 0)
    made = {n: _run(block, kinds, n) for n in set(lengths)}
    return [made[n] for n in lengths]


def _in_order(block: Block) -> tuple[int, ...]:
    """Options that no other beats in both, in Johnson's order: while a block loads for less time
    than it computes, the shortest loads first; then the longest computations."""
    best: list[int] = []
    for i in sorted(range(len(block)), key=lambda i: block[i]):
        if not best or block[i].compute < block[best[-1]].compute:
            best.append(i)

    def place(i: int) -> tuple[bool, float]:
        load, compute = block[i]
        return (True, -compute) if load >= compute else (False, load)

    return tuple(sorted(best, key=place))


def _run(block: Block, kinds: tuple[int, ...], length: int) -> Run:
    counts = _counts(length, len(kinds))
    load, compute = np.array([block[i] for i in kinds]).T[:, :, None]
    loads, computes = counts * load, counts * compute
    s, l = computes.sum(0), loads.sum(0)  # noqa: E741
    # Of the blocks with one option, it is the first or the last whose load can hold up the others.
    before, after = loads.cumsum(0) - loads, s - computes.cumsum(0)
    ends = before + np.maximum(load + computes, loads + compute) + after
    t = np.where(counts > 0, ends, -np.inf).max(0)
    return Run(kinds, counts, s, l, t)


def _ways(length: int, kinds: int) -> int:
    return comb(length + kinds - 1, kinds - 1)


@lru_cache(maxsize=256)
def _counts(length: int, kinds: int) -> Integers:
    """All ways to write `length` as a sum of `kinds` numbers, (kinds, ways)."""
    if kinds == 1:
        return np.array([[length]])
    rest = [_counts(length - n, kinds - 1) for n in range(length + 1)]
    first = np.repeat(np.arange(length + 1), [part.shape[1] for part in rest])
    return np.concatenate((first[None], np.concatenate(rest, axis=1)))
