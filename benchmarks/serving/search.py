"""Which rate to try next for how long, to find the highest that is sustained. Pure.

Every answer is noisy, and the share in time cannot rise with the rate. So all trials together are
read as the non-increasing curve that fits them best (isotonic regression: pool adjacent violators,
Ayer et al. 1955, weighted by requests): a rate that failed by bad luck is pooled with the higher
ones that passed, and does not stay excluded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.runs.find_rate import Level, Trial, pooled

MAX_TRIALS: Final = 64
MAX_REPEATS: Final = 3
"""How many long trials' requests a rate gets at most."""


@dataclass(frozen=True, slots=True)
class Search:
    """`share`: of requests that must be in time. `start`: the first rate. `growth`: from one rate
    to the next until one fails. `coarse`, `fine`: requests of a trial before and after that, more
    if they would not last `seconds`: a queue takes time to grow.
    `precision`: how far the found rate may be under one that fails, as a share of itself."""

    start: float = 1.0
    share: float = 0.9
    growth: float = 1.6
    coarse: int = 20
    fine: int = 60
    seconds: float = 0.0
    precision: float = 0.08

    def coarsely(self, rate: float) -> "Next":
        return self._next(rate, self.coarse)

    def finely(self, rate: float) -> "Next":
        return self._next(rate, self.fine)

    def _next(self, rate: float, requests: int) -> "Next":
        return Next(rate, max(requests, math.ceil(rate * self.seconds)))


@dataclass(frozen=True, slots=True)
class Next:
    """Offer this many requests at this rate."""

    rate: float
    requests: int


def next_trial(trials: Sequence[Trial], search: Search) -> Next | None:
    """None: nothing is left to find out."""
    if not trials:
        return search.coarsely(search.start)
    if len(trials) >= MAX_TRIALS:
        return None
    good, bad = bracket(pooled(trials), search.share)
    if bad is None:
        assert good is not None  # one of the two was tried
        return search.coarsely(good.rate * search.growth)
    if bad.of < search.fine and _unclear(bad, search):
        return search.finely(bad.rate)
    if good is None:
        return search.coarsely(bad.rate / search.growth)
    if bad.rate > good.rate * (1 + search.precision):
        return search.finely(math.sqrt(good.rate * bad.rate))
    least_known = min((bad, good), key=lambda level: level.of)
    for level in (least_known, bad, good):
        if level.of < MAX_REPEATS * search.fine and _unclear(level, search):
            return search.finely(level.rate)
    return None


def bracket(levels: Sequence[Level], share: float) -> tuple[Level | None, Level | None]:
    """The highest of `levels` (ascending in rate) that is sustained, and the next one, which is
    not; None where there is none."""
    sustained = sum(fit >= share for fit in fitted(levels))
    good = levels[sustained - 1] if sustained else None
    return good, levels[sustained] if sustained < len(levels) else None


def fitted(levels: Sequence[Level]) -> list[float]:
    """The share in time at each of `levels` (ascending in rate) on the curve that fits best."""
    blocks: list[tuple[int, int, int]] = []  # in time, of, levels
    for level in levels:
        block = (level.met, level.of, 1)
        while blocks and blocks[-1][0] * block[1] <= block[0] * blocks[-1][1]:
            met, of, count = blocks.pop()
            block = (met + block[0], of + block[1], count + block[2])
        blocks.append(block)
    return [met / of for met, of, count in blocks for _ in range(count)]


def _unclear(level: Level, search: Search) -> bool:
    return level.low < search.share < level.high
