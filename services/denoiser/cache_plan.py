"""Which blocks of a step use their caches: the plan with the least makespan. Pure, no torch.

Each block is computed in one of several ways (in full, from cached outputs, from cached keys and
values), and each way has a time to load what it needs and a time to compute. One stream loads, in
the order of the blocks and ahead of the computation; another computes, in the same order; a block
is computed when its load is done. InstGenIE (arXiv 2505.20600) walks the blocks once and takes the
cache where that ends the block earlier; here every plan counts that can still be the best.

A stretch of blocks that starts with its loads possible from `a` on and its computation from `b` on
ends at `max(b + s, a + t)`: s, all its computation; t, its end if loads alone hold it up; and the
loader is done at `a + l`. From the last block to the first, the plans of the rest are kept whose
(s, t) no other plan beats in both. Equal blocks in a row (a model has few kinds) are chosen by
how many take each way: in which order is then known (Johnson 1954, "Optimal two- and three-stage
production schedules with setup times included").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import comb
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_COUNTS: Final = 1024
"""Ways to distribute the options over a run of equal blocks; a longer run is cut."""
MAX_FRONT: Final = 4096
"""Plans of the rest that are kept; what is beyond goes by its bound: the plan is not `exact`."""
FIRST_FRONT: Final = 128
"""The same in a first search. If it has to leave something out, its plan bounds a second one."""
PRICES: Final = np.array([0.0, 0.3, 0.5, 0.7, 0.85, 1.0])
"""Of a second of computation, a second of loading costing the rest of 1: for lower bounds."""
ROUNDING: Final = 1e-9
"""Share by which a bound may be wrong."""


class Option(NamedTuple):
    """One way to compute a block; seconds, or any other unit of time."""

    load: float
    compute: float


Block = tuple[Option, ...]
"""At least one option."""


class Timeline(NamedTuple):
    """When the loader and the computation are done, if the computation starts at 0."""

    loaded: float
    computed: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`choices`: for each block the index of its option."""

    choices: tuple[int, ...]
    makespan: float
    """From when the computation may begin."""
    loading: float
    """Time that the loader needs for it."""
    head: float
    """Time that the loader had before."""
    exact: bool
    """No plan is better; False if so many had to be kept that some were left out."""

    @property
    def needs_no_load(self) -> bool:
        return self.loading == 0.0

    @property
    def next_head(self) -> float:
        """What the loader has for the next step, if it goes on with it at once."""
        return self.makespan + self.head - self.loading


def timeline(blocks: Sequence[Block], choices: Sequence[int], head: float = 0.0) -> Timeline:
    """Of a plan whose loader began `head` before the computation may."""
    loaded, computed = -head, 0.0
    for block, choice in zip(blocks, choices, strict=True):
        option = block[choice]
        loaded += option.load
        computed = max(computed, loaded) + option.compute
    return Timeline(loaded, computed)


def best_plan(blocks: Sequence[Block], head: float = 0.0) -> Plan:
    """The plan with the least makespan. `head`, at least 0: how long before the computation the
    loader may begin, since it was done early with the step before (`Plan.next_head`)."""
    if head < 0.0:
        raise ValueError(f"head: {head}, allowed: at least 0")
    choices, exact = _choose(blocks, head)
    loaded, computed = timeline(blocks, choices, head)
    return Plan(choices, computed, loaded + head, head, exact)


class _Run(NamedTuple):
    """Equal blocks in a row, with every way to distribute `kinds` over them.

    `kinds`: indices of the options that can be best, in the order in which they are taken."""

    kinds: tuple[int, ...]
    counts: Integers
    """(ways, kinds)"""
    s: Reals
    l: Reals  # noqa: E741 (as in the module's docstring)
    t: Reals
    floor: Reals
    """What it costs at least, at each of `PRICES`."""


def _choose(blocks: Sequence[Block], head: float) -> tuple[tuple[int, ...], bool]:
    runs = [run for block, same in groupby(blocks) for run in _runs(block, len(list(same)))]
    found = _search(runs, head, FIRST_FRONT, np.inf)
    if not found.exact:
        found = _search(runs, head, MAX_FRONT, found.makespan)
    chosen = (
        np.repeat(run.kinds, run.counts[way]) for run, way in zip(runs, found.ways, strict=True)
    )
    return tuple(int(option) for options in chosen for option in options), found.exact


def _runs(block: Block, length: int) -> list[_Run]:
    kinds = _in_order(block)
    longest = next(n for n in range(length, 0, -1) if _ways(n, len(kinds)) <= MAX_COUNTS or n == 1)
    lengths = [longest] * (length // longest) + [length % longest] * (length % longest > 0)
    runs = {n: _run(block, kinds, n) for n in set(lengths)}
    return [runs[n] for n in lengths]


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


def _run(block: Block, kinds: tuple[int, ...], length: int) -> _Run:
    counts = _counts(length, len(kinds))
    load = np.array([block[i].load for i in kinds])
    compute = np.array([block[i].compute for i in kinds])
    loads, computes = counts * load, counts * compute
    s, l = computes.sum(1), loads.sum(1)  # noqa: E741
    # Of the blocks with one option, it is the first or the last whose load can hold up the others.
    before, after = loads.cumsum(1) - loads, s[:, None] - computes.cumsum(1)
    ends = before + np.maximum(load + computes, loads + compute) + after
    t = np.where(counts > 0, ends, -np.inf).max(1)
    floor = length * (np.outer(PRICES, compute) + np.outer(1.0 - PRICES, load)).min(1)
    return _Run(kinds, counts, s, l, t, floor)


def _ways(length: int, kinds: int) -> int:
    return comb(length + kinds - 1, kinds - 1)


@lru_cache(maxsize=256)
def _counts(length: int, kinds: int) -> Integers:
    """All ways to write `length` as a sum of `kinds` numbers, (ways, kinds)."""
    if kinds == 1:
        return np.array([[length]])
    rest = [_counts(length - n, kinds - 1) for n in range(length + 1)]
    first = np.repeat(np.arange(length + 1), [len(part) for part in rest])
    return np.column_stack([first, np.concatenate(rest)])


class _Found(NamedTuple):
    makespan: float
    ways: list[int]
    """For each run the index of its counts."""
    exact: bool


def _search(runs: Sequence[_Run], head: float, width: int, limit: float) -> _Found:
    """The best plan, if it takes no longer than `limit` and `width` is enough."""
    floors = np.cumsum([np.zeros(len(PRICES)), *(run.floor for run in runs)], axis=0)
    s, t, exact = np.zeros(1), np.zeros(1), True  # the loader is never behind the computation
    steps: list[tuple[Integers, int]] = []
    for run, floor in zip(reversed(runs), floors[-2::-1], strict=True):
        plans = len(s)
        s, t = (
            np.add.outer(run.s, s).ravel(),
            np.maximum(np.add.outer(run.t, s), np.add.outer(run.l, t)).ravel(),
        )
        if run is runs[0] and len(steps) == len(runs) - 1:
            kept = np.array([np.maximum(s, t - head).argmin()])
        else:
            kept, complete = _kept(s, t, head, floor, width, limit)
            exact = exact and complete
        s, t = s[kept], t[kept]
        steps.append((kept, plans))
    at, ways = 0, []
    for kept, plans in reversed(steps):
        way, at = divmod(int(kept[at]), plans)
        ways.append(way)
    return _Found(float(max(s[0], t[0] - head)), ways, exact)


def _kept(
    s: Reals, t: Reals, head: float, floor: Reals, width: int, limit: float
) -> tuple[Integers, bool]:
    """Indices of the plans to go on with, and whether they are all that can be best."""
    able = np.arange(len(s)) if limit == np.inf else _able(s, t - head, floor, limit)
    kept = able[_front(s[able], t[able])]
    if len(kept) <= width:
        return kept, True
    bound = _bound(s[kept], t[kept] - head, floor)
    return kept[np.argsort(bound, kind="stable")[:width]], False


def _front(s: Reals, t: Reals) -> Integers:
    """Indices of the plans that no other beats in both."""
    order = np.argsort(s, kind="stable")
    sorted_t = t[order]
    better = np.ones(len(order), dtype=bool)
    better[1:] = sorted_t[1:] < np.minimum.accumulate(sorted_t)[:-1]
    return order[better]


def _able(s: Reals, t: Reals, floor: Reals, limit: float) -> Integers:
    """Indices of the plans that may still end by `limit`."""
    return np.flatnonzero(_bound(s, t, floor) <= limit * (1.0 + ROUNDING))


def _bound(s: Reals, t: Reals, floor: Reals) -> Reals:
    """No plan that ends like this takes less: the blocks before cost `floor` at least, at any price
    of computation against loading."""
    least: Reals = s * PRICES[0] + t * (1.0 - PRICES[0]) + floor[0]
    for price, cost in zip(PRICES[1:], floor[1:], strict=True):
        np.maximum(least, s * price + t * (1.0 - price) + cost, out=least)
    return least
