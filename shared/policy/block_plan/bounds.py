"""What a step takes at least if a segment of it is computed in a given way. Pure, no torch.

The loader and the computation end at the latest of several times: all computation, or, for each
segment, the loads before it, the segment, and the computation after it. A mean of these times,
whatever their weights, is a lower bound, and a sum over segments, of which each can be least by
itself (Lagrange). In the sum a second of loading has a price p of 1 and one of computation the rest
1 - p; weight that is put on a segment lowers the price from its beginning to its end. So prices go
down from segment to segment, and which bound is the highest is found as a path over a few of them.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.policy.block_plan.runs import Reals

Singles = NDArray[np.float32]

RATIOS: Final = np.exp2(np.arange(-7.0, 8.0))
"""Prices of loading over those of computation, of which one is the best for all segments,"""
BETWEEN: Final = np.exp2(np.array([-0.6, -0.3, 0.0, 0.3, 0.6]))
"""or one of these times that."""
AROUND: Final = np.array([0.8, 1.0, 1.2])
"""Of that one; these, and 0 and 1, are the prices of paths."""
STARTS, ENDS = np.tril_indices(len(AROUND) + 2)
"""Indices of the prices with which a segment may begin and end: the latter is not higher."""


class Bounds(NamedTuple):
    prices: Reals
    """(P,), ascending"""
    rest: Reals
    """(segments + 1, P): what the segments from there on cost at least, if they begin at a price"""
    least: Singles
    """(segments, ways): no plan takes less that has this way, but for `ROUNDING`
    (`search.py`)."""

    @property
    def makespan(self) -> float:
        """No plan takes less."""
        return float(self.least.min(1).max())


def bounds(ways: Reals, head: float) -> Bounds:
    """Of `ways` (3, segments, ways): s, l, t (`runs.py`)."""
    segments, width = ways.shape[1:]
    s, l, t = ways.reshape(3, -1).astype(np.float32)  # noqa: E741
    prices = _prices(s, l, segments, head)
    p = prices.astype(np.float32)[:, None]
    costs = (s + (t - s) * p)[STARTS]
    costs += ((l - t) * p)[ENDS]
    costs = costs.reshape(-1, segments, width)
    before, rest = _paths(costs.min(2).T, prices, head)
    costs += (before[:-1, STARTS] + rest[1:, ENDS]).T[:, :, None].astype(np.float32)
    return Bounds(prices, rest, costs.max(0))


def _prices(s: Singles, l: Singles, segments: int, head: float) -> Reals:  # noqa: E741
    def best(ratios: Reals) -> float:
        shares = ratios / (1.0 + ratios)
        costs = s + (l - s) * shares.astype(np.float32)[:, None]
        least = costs.reshape(len(ratios), segments, -1).min(2).sum(1)
        return float(ratios[(least - head * shares).argmax()])

    around = best(best(RATIOS) * BETWEEN) * AROUND
    return np.concatenate(((0.0,), around / (1.0 + around), (1.0,)))


def _paths(least: Singles, prices: Reals, head: float) -> tuple[Reals, Reals]:
    """`least` (segments, STARTS). (segments + 1, prices) each: what segments cost at least until
    there, on the path that ends at a price, and from there on, on the one that begins at it."""
    segments, count = len(least), len(prices)
    steps = np.full((segments, 2, count, count), -np.inf)
    steps[:, 0, ENDS, STARTS] = least
    steps[:, 1, STARTS, ENDS] = least[::-1]
    found = np.zeros((segments + 1, 2, 1, count))
    found[0, 0] = -head * prices
    for step, so_far, then in zip(steps, found, found[1:, :, 0], strict=False):
        np.maximum.reduce(step + so_far, axis=2, out=then)
    return found[:, 0, 0], found[::-1, 1, 0]
