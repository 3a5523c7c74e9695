"""Which requests run together next: a pure decision, with no clock and no torch."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """`max_batch` images run at a time; a smaller batch starts when its oldest image has waited for
    `window` seconds. One and 0: one after another."""

    max_batch: int
    window: float

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.window < 0.0:
            raise ValueError(f"{self}: max_batch must be at least 1, window at least 0")


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image in the queue. Only those with equal keys can share a batch. After `deadline` (on
    the clock of `arrived`) nobody wants it any more."""

    key: Hashable
    arrived: float
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Start these now: positions in the queue, oldest first."""

    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is due until then, unless something arrives. None: the queue is empty."""

    until: float | None


def expired(queue: Sequence[Waiting], now: float) -> frozenset[int]:
    """Positions of the images that nobody wants any more: they are not to be drawn."""
    return frozenset(
        position
        for position, waiting in enumerate(queue)
        if waiting.deadline is not None and waiting.deadline <= now
    )


def next_batch(queue: Sequence[Waiting], now: float, policy: Policy) -> Run | Wait:
    """What an idle pipeline does. `queue` is in order of arrival.

    A group of equal keys is due when it fills a batch or its oldest image has waited long enough.
    Of the groups that are due, the one with the oldest image goes first."""
    groups: dict[Hashable, list[int]] = {}
    for position, waiting in enumerate(queue):
        groups.setdefault(waiting.key, []).append(position)
    for group in groups.values():
        due_at = queue[group[0]].arrived + policy.window
        if len(group) >= policy.max_batch or due_at <= now:
            return Run(tuple(group[: policy.max_batch]))
    return Wait(
        min((queue[group[0]].arrived + policy.window for group in groups.values()), default=None)
    )
