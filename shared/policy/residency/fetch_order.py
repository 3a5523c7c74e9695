"""Which of the items that are wanted is brought first. Pure.

All loads of a process share one link, and are made of pieces: after each piece the order is asked
for again. So nothing holds up what is wanted sooner for longer than a piece takes, however large it
is, and nothing that is large is held up for ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Wanted:
    """An item that is not there. `due`: when it is wanted, see `due`; `seconds` (above 0): what it
    takes to bring it, with nothing else on the link; `likelihood`: how likely it is wanted then,
    from 0 to 1; `asked`: the number of this wish."""

    asked: int
    due: float
    seconds: float
    likelihood: float = 1.0


def due(now: float, within: float, seconds: float) -> float:
    """When an item is due that is wanted `within` so many seconds, and takes `seconds` to bring:
    what is wanted at once is late only when it could have been there."""
    return now + max(within, seconds)


def precedence(wanted: Wanted, now: float) -> tuple[float, float, float, int]:
    """By which what is wanted is put into order, smallest first.

    What is not late comes by when it is due, and before that what is late, first what has been late
    for longest in proportion to what it takes: the ratio by which a user's wait grows, as in
    highest-response-ratio-next (Brinch Hansen, 1971). A load of a minute yields so to one of a
    millisecond, and gets ahead when it has waited long enough."""
    late = wanted.likelihood * max(0.0, now - wanted.due) / wanted.seconds
    return -late, wanted.due, -wanted.likelihood, wanted.asked


def fetch_order(wanted: Mapping[K, Wanted] | Iterable[tuple[K, Wanted]], now: float) -> list[K]:
    """All that is wanted, in the order in which it is brought if nothing else is wanted."""
    pairs = wanted.items() if isinstance(wanted, Mapping) else wanted
    return [key for key, _ in sorted(pairs, key=lambda pair: precedence(pair[1], now))]
