"""Which blocks of a step use their caches: the plan with the least makespan. Pure, no torch.

Each block is computed in one of several ways (in full, from cached outputs, from cached keys and
values), and each way has a time to load what it needs and a time to compute. One stream loads, in
the order of the blocks and ahead of the computation; another computes, in the same order; a block
is computed when its load is done. InstGenIE (arXiv 2505.20600) walks the blocks once and takes the
cache where that ends the block earlier; here every plan counts that can still be the best.

From the last block to the first, the plans of the rest are kept whose (s, t) no other plan beats in
both (`block_runs.py`, which also says how equal blocks in a row are planned).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from services.denoiser.block_runs import PRICES, Block, Integers, Reals, Run, runs_of

MAX_FRONT: Final = 4096
"""Plans of the rest that are kept; what is beyond goes by its bound: the plan is not `exact`."""
FIRST_FRONT: Final = 128
"""The same in a first search. If it has to leave something out, its plan bounds a second one."""
ROUNDING: Final = 1e-9
"""Share by which a bound may be wrong."""


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


def _choose(blocks: Sequence[Block], head: float) -> tuple[tuple[int, ...], bool]:
    runs = runs_of(blocks)
    found = _search(runs, head, FIRST_FRONT, np.inf)
    if not found.exact:
        found = _search(runs, head, MAX_FRONT, found.makespan)
    chosen = (
        np.repeat(run.kinds, run.counts[way]) for run, way in zip(runs, found.ways, strict=True)
    )
    return tuple(int(option) for options in chosen for option in options), found.exact


class _Found(NamedTuple):
    makespan: float
    ways: list[int]
    """For each run the index of its counts."""
    exact: bool


def _search(runs: Sequence[Run], head: float, width: int, limit: float) -> _Found:
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
