"""The blocks of a step as few segments, each with all ways to compute it. Pure, no torch.

A segment is a run of equal blocks (`runs.py`), or a few that differ, with every combination
of their options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby, product
from typing import Final, NamedTuple

import numpy as np

from shared.policy.block_plan.runs import Block, Option, Reals, Run, runs

GROUP_WAYS: Final = 81
"""Ways of a segment of different blocks, at most, if it has more than one."""
GROUP_BLOCKS: Final = 8
NEVER: Final = 1e30
"""Times of a way that there is not: where a segment has fewer than another one."""
NOTHING: Final[Block] = (Option(0.0, 0.0),)

Group = tuple[Block, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    ways: Reals
    """(3, segments, ways): s, l and t of each way (`runs.py`)."""
    _parts: tuple[Run | Group, ...]
    _options: int

    def choices(self, ways: Sequence[int]) -> tuple[int, ...]:
        """For each block the index of its option, given for each segment that of its way."""
        combined = _combinations(self._options).choices
        found: list[int] = []
        for part, way in zip(self._parts, ways, strict=True):
            if isinstance(part, Run):
                found.extend(np.repeat(part.kinds, part.counts[:, way]).tolist())
            else:
                found.extend(combined[way][: len(part)])
        return tuple(found)


def segments_of(blocks: Sequence[Block]) -> Segments:
    """Of at least one block."""
    options = max(map(len, blocks))
    length = _group_length(options)
    parts: list[Run | Group] = []
    alone: list[Block] = []

    def close() -> None:
        parts.extend(tuple(alone[i : i + length]) for i in range(0, len(alone), length))
        alone.clear()

    for block, same in groupby(blocks):
        equal = list(same)
        if len(equal) <= length:
            alone += equal
        else:
            close()
            parts += runs(block, len(equal))
    close()
    return Segments(_ways(parts, options, length), tuple(parts), options)


def _group_length(options: int) -> int:
    return next(n for n in range(GROUP_BLOCKS, 0, -1) if options**n <= GROUP_WAYS or n == 1)


class _Combinations(NamedTuple):
    choices: list[tuple[int, ...]]
    sums: Reals
    """(2 x length x options, (2 + length) x ways): for each way which loads and computations add up
    to s, to l, and to what it takes if the load of one of the blocks is the last to be waited for.
    """


@lru_cache(maxsize=16)
def _combinations(options: int) -> _Combinations:
    length = _group_length(options)
    choices = list(product(range(options), repeat=length))
    taken = np.eye(options)[np.array(choices).T]
    taken = taken.swapaxes(1, 2)  # (length, options, ways)
    place = np.arange(length)
    loads = np.concatenate((np.zeros((1, length)), np.ones((1, length)), place <= place[:, None]))
    computes = np.concatenate(
        (np.ones((1, length)), np.zeros((1, length)), place >= place[:, None])
    )
    sums = np.array((loads, computes))[:, :, :, None, None] * taken
    rows = 2 * length * options
    return _Combinations(choices, sums.transpose(0, 2, 3, 1, 4).reshape(rows, -1).copy())


def _ways(parts: Sequence[Run | Group], options: int, length: int) -> Reals:
    groups = [part for part in parts if not isinstance(part, Run)]
    if len(groups) == len(parts):
        return _joined(groups, options, length)
    found = [np.array((part.s, part.l, part.t)) for part in parts if isinstance(part, Run)]
    if groups:
        found.extend(_joined(groups, options, length).swapaxes(0, 1))
    places = sorted(range(len(parts)), key=lambda i: not isinstance(parts[i], Run))
    ways = np.full((3, len(parts), max(each.shape[1] for each in found)), NEVER)
    for place, each in zip(places, found, strict=True):
        ways[:, place, : each.shape[1]] = each
    return ways


def _joined(groups: Sequence[Group], options: int, length: int) -> Reals:
    """(3, groups, ways) of all combinations."""
    times = _times(groups, options, length)
    sums = (times @ _combinations(options).sums).reshape(len(groups), 2 + length, -1)
    return np.array((sums[:, 0], sums[:, 1], sums[:, 2:].max(1)))


def _times(groups: Sequence[Group], options: int, length: int) -> Reals:
    """(groups, 2 x length x options): to load, then to compute."""
    never = (Option(NEVER, NEVER),)
    full = (group + (NOTHING,) * (length - len(group)) for group in groups)
    rows = (block + never * (options - len(block)) for block in chain.from_iterable(full))
    flat = list(chain.from_iterable(chain.from_iterable(rows)))
    times = np.array(flat, dtype=float).reshape(len(groups), length * options, 2)
    return times.swapaxes(1, 2).reshape(len(groups), -1)
