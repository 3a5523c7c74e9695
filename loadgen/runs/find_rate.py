"""The highest rate at which a server keeps its promise: a search whose every answer is noisy.

`decide` is pure: from the trials so far to the next rate to try, or the result. A trial offers one
rate and counts how many requests met their deadline. First the rate doubles or halves until one
passes and one fails; then the gap is halved (on a logarithmic scale) until it is as narrow as
wanted. A rate whose answer is within its own Wilson interval (1927) of the wanted share is tried
again, and the counts are added, until it is clear or has been tried `repeats` times.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from loadgen.report.statistics.wilson import wilson
from shared.errors import InvalidRequest

MAX_TRIALS: Final = 64
"""Of one search, whatever the settings."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` requests per second were offered; `met` of `of` were done within their deadline.
    `quiet`: the server had got over whatever came before."""

    rate: float
    met: int
    of: int
    quiet: bool = True


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`share`: of requests that must meet their deadline. `start`: the first rate, 1 if
    not given. `precision`: how far the found rate may be under the lowest that fails, as a share
    of itself. `repeats`: trials of one rate at most."""

    share: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    start: Annotated[float, Meta(gt=0)] | None = None
    lowest: Annotated[float, Meta(gt=0)] = 0.001
    highest: Annotated[float, Meta(gt=0)] = 100_000.0
    precision: Annotated[float, Meta(gt=0)] = 0.05
    repeats: Annotated[int, Meta(ge=1)] = 3


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """All trials of one rate. `low`, `high`: the 95% Wilson interval of `share`."""

    rate: float
    trials: int
    met: int
    of: int
    share: float
    low: float
    high: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` passed and is the highest that did; 0 if not even the lowest did.

    `low`: the highest rate, `rate` or below, that is surely good enough, its Wilson interval being
    above the wanted share; `high`: the lowest rate above `low` that surely is not; None if no such
    rate was tried. Requests of one trial wait for each other, so that their answers are less
    independent than the interval assumes: between trials of different seeds, expect a little more
    than it says.
    """

    rate: float
    low: float
    high: float | None
    share: float
    """Wanted."""
    levels: list[Level]
    """Ascending in rate."""
    trials: list[Trial]
    """In the order in which they were made."""


RunTrial = Callable[[float], Awaitable[Trial]]


async def find_rate(trial: RunTrial, search: Search | None = None) -> Found:
    """Call `trial` with a rate as often as `decide` wants to know more."""
    search, trials = search or Search(), list[Trial]()
    while True:
        match decide(trials, search):
            case Found() as found:
                return found
            case rate:
                trials.append(await trial(rate))


def decide(trials: Sequence[Trial], search: Search) -> float | Found:
    """The next rate to try, or the result. Raises `InvalidRequest` for an empty trial."""
    for trial in trials:
        if trial.of < 1:
            raise InvalidRequest("trial", f"{trial.of} requests", "at least one; try it for longer")
    levels = pooled(trials)
    if len(trials) >= MAX_TRIALS:
        return found(levels, trials, search)
    if trials and _unclear(_level(levels, trials[-1].rate), search):
        return trials[-1].rate
    rate = _next_rate(levels, search)
    return found(levels, trials, search) if rate is None else rate


def pooled(trials: Sequence[Trial]) -> list[Level]:
    """Trials of the same rate added up, ascending in rate."""
    levels = []
    for rate in sorted({trial.rate for trial in trials}):
        here = [trial for trial in trials if trial.rate == rate]
        met, of = sum(trial.met for trial in here), sum(trial.of for trial in here)
        low, high = wilson(met, of)
        share = met / of
        levels.append(
            Level(rate=rate, trials=len(here), met=met, of=of, share=share, low=low, high=high)
        )
    return levels


def found(levels: Sequence[Level], trials: Sequence[Trial], search: Search) -> Found:
    """What the trials so far say, whether the search is over or was stopped."""
    best, _ = _bracket(levels, search)
    low, high = surely(levels, search.share, best)
    return Found(
        rate=best,
        low=low,
        high=high,
        share=search.share,
        levels=list(levels),
        trials=list(trials),
    )


def surely(levels: Sequence[Level], share: float, rate: float) -> tuple[float, float | None]:
    """The highest rate, `rate` or below, whose interval is above `share`, and the lowest above that
    one whose interval is below it: `Found.low` and `Found.high`."""
    good = [level.rate for level in levels if level.low >= share and level.rate <= rate]
    low = max(good, default=0.0)
    bad = [level.rate for level in levels if level.high < share and level.rate > low]
    return low, min(bad, default=None)


def _next_rate(levels: Sequence[Level], search: Search) -> float | None:
    """None: there is nothing left to try."""
    if not levels:
        return min(max(search.start or 1.0, search.lowest), search.highest)
    good, bad = _bracket(levels, search)
    if bad is None:
        return None if good >= search.highest else min(2 * good, search.highest)
    if good == 0:
        return None if bad <= search.lowest else max(bad / 2, search.lowest)
    return None if bad <= good * (1 + search.precision) else math.sqrt(good * bad)


def _bracket(levels: Sequence[Level], search: Search) -> tuple[float, float | None]:
    """The highest rate that passed below the lowest that failed, and that one. A rate that passes
    above one that fails was lucky."""
    bad = min((level.rate for level in levels if level.share < search.share), default=None)
    good = [level.rate for level in levels if bad is None or level.rate < bad]
    return max(good, default=0.0), bad


def _unclear(level: Level, search: Search) -> bool:
    return level.trials < search.repeats and level.low < search.share < level.high


def _level(levels: Sequence[Level], rate: float) -> Level:
    return next(level for level in levels if level.rate == rate)
