"""What the plan of a step's caches is compared with: every plan there is, and rules. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from shared.policy.block_plan.runs import Block, Option
from shared.policy.block_plan.search import timeline

FULL, OUTPUTS = 0, 1
"""Options of a block: computed in full, which needs no load; from cached outputs."""
MOST: Final = 2_000_000
"""Plans that are tried one by one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Makespans of one instance under each way to plan it, over that of the best plan."""

    greedy: float
    cached: float
    none: float


def least_makespan(blocks: Sequence[Block], head: float = 0.0) -> float:
    """Of all plans, each tried. Raises `ValueError` for more than `MOST`."""
    plans = float(np.prod([len(block) for block in blocks], dtype=float))
    if plans > MOST:
        raise ValueError(f"blocks: {plans:.0f} plans, allowed: at most {MOST}")
    loaded, computed = np.array([-head]), np.zeros(1)
    for block in blocks:
        done = [loaded + option.load for option in block]
        ends = [
            np.maximum(computed, d) + option.compute for d, option in zip(done, block, strict=True)
        ]
        loaded, computed = np.concatenate(done), np.concatenate(ends)
    return float(computed.min())


def greedy(blocks: Sequence[Block], head: float = 0.0) -> tuple[int, ...]:
    """InstGenIE's algorithm (arXiv 2505.20600): walk the blocks once, and take the cache where the
    block does not end later by it: `max(load + L, comp) + C_w <= comp + C_wo`. Of several caches,
    the one with which it ends first."""
    loaded, computed = -head, 0.0
    choices = []
    for block in blocks:
        ends = [(max(computed, loaded + o.load) + o.compute, -i) for i, o in enumerate(block)]
        computed, negative = min(ends)
        loaded += block[-negative].load
        choices.append(-negative)
    return tuple(choices)


def over_best(blocks: Sequence[Block], best: float) -> Rule:
    """Makespans over `best`: of the greedy plan, of cached outputs everywhere, and of no cache."""

    def ratio(choices: Sequence[int]) -> float:
        return timeline(blocks, choices).computed / best

    count = len(blocks)
    return Rule(ratio(greedy(blocks)), ratio([OUTPUTS] * count), ratio([FULL] * count))


def pair(with_cache: float, without: float, load: float) -> Block:
    """A block in two ways: C_w, C_wo and L of the paper."""
    return (Option(0.0, without), Option(load, with_cache))


def equal_blocks(count: int, lot: Random) -> list[Block]:
    """Blocks that are all alike, with two options each."""
    block = pair(lot.uniform(0.05, 0.95), 1.0, lot.uniform(0.02, 1.5))
    return [block] * count


def different_blocks(count: int, lot: Random) -> list[Block]:
    """Each with three options of its own; keys and values are twice the bytes of outputs."""
    return [_three(lot, lot.uniform(0.5, 2.0)) for _ in range(count)]


def flux_blocks(lot: Random) -> list[Block]:
    """57 blocks of two kinds, as FLUX has them: 19 double ones, then 38 single ones."""
    double = _three(lot, 1.0)
    single = tuple(Option(option.load / 2.0, option.compute / 2.0) for option in double)
    return [double] * 19 + [single] * 38


def _three(lot: Random, without: float) -> Block:
    load, with_cache = lot.uniform(0.05, 1.5), without * lot.uniform(0.2, 0.9)
    return (
        Option(0.0, without),
        Option(load, with_cache),
        Option(2.0 * load, with_cache * lot.uniform(0.5, 1.0)),
    )
