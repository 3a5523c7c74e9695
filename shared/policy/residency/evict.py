"""What leaves a tier that is to hold less. Pure."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Resident(Generic[K]):
    """An item of a tier. `used`: the later it was used last, the larger; `likelihood`: how likely
    it is wanted again, from 0 to 1; `seconds_per_byte`: what it takes to bring it again, which is
    the same number for all items that come the same way. What is `pinned` stays."""

    key: K
    nbytes: int
    used: float
    seconds_per_byte: float = 1.0
    likelihood: float = 1.0
    pinned: bool = False

    @property
    def worth(self) -> float:
        """Seconds that each of its bytes is expected to save."""
        return self.seconds_per_byte * self.likelihood


class Eviction(NamedTuple, Generic[K]):
    """What leaves, in this order, and the bytes that stay: more than the bound only where all that
    stays is pinned."""

    leaves: tuple[K, ...]
    stays: int


def evict(held: Iterable[Resident[K]], bound: int) -> Eviction[K]:
    """What leaves, so that the rest is at most `bound` bytes: what is worth least per byte, and of
    what is worth the same, what was not used for longest. Nothing leaves that need not."""
    items = list(held)
    stays = sum(item.nbytes for item in items)
    leaves = []
    for item in sorted(items, key=lambda item: (item.worth, item.used)):
        if stays <= bound:
            break
        if not item.pinned:
            leaves.append(item.key)
            stays -= item.nbytes
    return Eviction(tuple(leaves), stays)
