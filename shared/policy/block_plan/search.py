"""Which blocks of a step use their caches: the plan with the least makespan. Pure, no torch.

Each block is computed in one of several ways (in full, from cached outputs, from cached keys and
values), and each way has a time to load what it needs and a time to compute. One stream loads, in
the order of the blocks and ahead of the computation; another computes, in the same order; a block
is computed when its load is done. InstGenIE (arXiv 2505.20600) walks the blocks once and takes the
cache where that ends the block earlier; here every plan counts that can still be the best. Of
blocks that are all equal `equal.py` knows it without a search.

Lower bounds come first (`bounds.py`): a block, or a few, are left with those of their ways
that can end by a limit a little above the bound of the whole. Then, from the first block to the
last, the plans are kept whose loads and computation no other ends earlier both, and which can still
end by the limit. If one does, none is better; if none does, the limit is raised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from shared.policy.block_plan.bounds import Bounds, bounds
from shared.policy.block_plan.runs import Block, Integers, Reals
from shared.policy.block_plan.segments import Segments, segments_of

GAP: Final = 0.004
"""Share of the bound at which the first limit is above it,"""
WIDER: Final = 1.8
"""and by how much farther the next one each time."""
FEW: Final = 200
"""Plans among which none is left out: to look which would take longer."""
MAX_FRONT: Final = 4096
"""Plans that are kept; what is beyond goes by its bound: the plan is not `exact`."""
FIRST_FRONT: Final = 512
"""The same in a first search. If it has to leave something out, its plan bounds a second one."""
ROUNDING: Final = 3e-6
"""Share of the limit and the head by which bounds, whose costs are float32, may be too high: ten
roundings of at most s + l + t in each segment, which for a plan that ends by the limit add up to
at most four times the limit and the head."""


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
    exact: bool
    """No plan is better; False if so many had to be kept that some were left out."""


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
    loader may begin, since it was done early with the step before."""
    if head < 0.0:
        raise ValueError(f"head: {head}, allowed: at least 0")
    choices, exact = _choose(segments_of(blocks), _usable(head, blocks)) if blocks else ((), True)
    return Plan(choices, timeline(blocks, choices, head).computed, exact)


def _usable(head: float, blocks: Sequence[Block]) -> float:
    """As much of `head` as loads can take."""
    return head and min(head, sum(max(option.load for option in block) for block in blocks))


class _Found(NamedTuple):
    makespan: float
    """Infinite if nothing was found."""
    ways: list[int]
    """For each segment the index of its way."""
    complete: bool
    """Nothing was left out that ends by the limit."""


def _choose(segments: Segments, head: float) -> tuple[tuple[int, ...], bool]:
    """The plan for each block, and whether no other is better: the search leaves out what cannot
    end by a limit, which is raised until it finds a plan, at last to when one ends that there is.
    """
    if segments.ways.shape[1] == 1:
        s, l, t = segments.ways[:, 0]  # noqa: E741
        return segments.choices([int(np.lexsort((l, np.maximum(s, t - head)))[0])]), True
    known, gap = bounds(segments.ways, head), GAP
    first = _promising(segments.ways, known, head)
    while True:
        limit = first.makespan
        if gap < 1.0:
            limit = min(limit, known.makespan * (1.0 + gap))
        found = _search(segments.ways, known, head, limit, FIRST_FRONT)
        if not found.complete:
            bound = min(limit, found.makespan)
            wide = _search(segments.ways, known, head, bound, MAX_FRONT)
            found = _Found(*min(found[:2], wide[:2]), wide.complete)
        if found.makespan <= limit:
            return segments.choices(found.ways), found.complete
        if limit == first.makespan:
            return segments.choices(first.ways), found.complete
        gap *= WIDER


def _promising(ways: Reals, known: Bounds, head: float) -> _Found:
    """For each segment the way whose bound is the least."""
    least = known.least.argmin(1)
    loaded, computed = -head, 0.0
    for s, l, t in ways[:, np.arange(len(least)), least].T.tolist():  # noqa: E741
        loaded, computed = loaded + l, max(computed + s, loaded + t)
    return _Found(computed, least.tolist(), complete=False)


def _search(ways: Reals, known: Bounds, head: float, limit: float, width: int) -> _Found:
    """The best plan that ends by `limit`, if there is one and `width` is enough."""
    limit += ROUNDING * (limit + head)
    able = known.least <= limit
    if not able.any(1).all():
        return _Found(np.inf, [], complete=True)
    kept, index = ways[:, able].take((1, 0, 2), axis=0)[:, :, None], able.nonzero()[1]
    ends = able.sum(1).cumsum().tolist()
    slacks = (limit - known.rest[1:])[:, :, None]
    weights = np.stack((known.prices, 1.0 - known.prices), axis=1)
    plans, complete, first = np.array(((-head,), (0.0,))), True, 0
    steps: list[tuple[Integers | None, int, int]] = []
    for end, slack in zip(ends, slacks, strict=True):
        before = plans.shape[1]
        plans, chosen = _extended(plans, kept[:, first:end]), None
        if plans.shape[1] > FEW:
            chosen, all_kept = _kept(plans, weights, slack, width)
            plans, complete = plans.take(chosen, axis=1), complete and all_kept
            if not len(chosen):
                return _Found(np.inf, [], complete)
        steps.append((chosen, before, first))
        first = end
    at = int(np.lexsort(plans)[0])
    return _Found(float(plans[1, at]), _ways(steps, index, at), complete)


def _extended(plans: Reals, ways: Reals) -> Reals:
    """`plans` (2, plans): until when they load and compute; each with each of `ways` (3, ways, 1):
    l, s, t, which changes last."""
    longer = ways + plans.take((0, 1, 0), axis=0)[:, None]
    np.maximum(longer[1], longer[2], out=longer[1])
    return longer[:2].reshape(2, -1)


def _kept(plans: Reals, weights: Reals, slack: Reals, width: int) -> tuple[Integers, bool]:
    """Indices of the plans to go on with, and whether they are all that can be best."""
    kept = np.logical_and.reduce(weights @ plans <= slack).nonzero()[0]
    kept = kept.take(_front(plans.take(kept, axis=1)))
    if len(kept) <= width:
        return kept, True
    over = (weights @ plans[:, kept] - slack).max(0)
    return kept[np.argsort(over, kind="stable")[:width]], False


def _front(plans: Reals) -> Integers:
    """Indices of the plans that no other beats in both."""
    order: Integers = plans[0].argsort(kind="stable")
    computed = plans[1].take(order)
    better = np.empty(len(order), dtype=bool)
    better[:1] = True
    np.less(computed[1:], np.minimum.accumulate(computed)[:-1], out=better[1:])
    return order[better]


def _ways(steps: Sequence[tuple[Integers | None, int, int]], index: Integers, at: int) -> list[int]:
    """How the plan at `at` came about. Each of `steps`: those kept, None if all; how many plans
    there were before; where in `index` the ways begin with which they were extended."""
    ways = []
    for chosen, before, first in reversed(steps):
        way, at = divmod(at if chosen is None else int(chosen[at]), before)
        ways.append(int(index[first + way]))
    return ways[::-1]
