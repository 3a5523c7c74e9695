"""Who has which of a tier's bytes."""

import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.errors import NoRoom
from shared.policy.residency.evict import Resident, evict
from shared.residency.rates import Rate

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class Share:
    """What one item has of a budget. `pins`: how many need it to stay; `rate`: how fast it would
    come again; `used`: the number of its last use."""

    nbytes: int
    rate: Rate
    likelihood: float
    used: int
    pins: int = 0


class Budget(Generic[K]):
    """The bytes of tier `name`, at most `bound`: of what is there, and of what is reserved for what
    is being brought. Whoever gets bytes is told what has to leave for it, and counts as gone. Not
    thread-safe."""

    def __init__(self, name: str, bound: int, strict: bool) -> None:
        """Not `strict`: what is larger than all that may leave has its bytes all the same, and
        nothing is reserved, for nothing leaves before what takes its place is there."""
        self.name, self.bound, self._strict = name, bound, strict
        self._shares: dict[K, Share] = {}
        self._reserved: dict[K, int] = {}
        self._uses = itertools.count()
        self.evictions = 0

    def __repr__(self) -> str:
        pinned = sum(share.pins > 0 for share in self._shares.values())
        return f"<Budget of {self.name}: {self.bytes}/{self.bound} bytes, {pinned} pinned>"

    def __len__(self) -> int:
        return len(self._shares)

    @property
    def bytes(self) -> int:
        held = sum(share.nbytes for share in self._shares.values())
        return held + sum(self._reserved.values())

    def reserve(self, key: K, nbytes: int) -> tuple[K, ...]:
        """Bytes for `key`, which is about to be brought; what leaves. Raises `NoRoom` if too much
        is pinned; then nothing leaves."""
        if not self._strict:
            return ()
        leaves = self._make_room(nbytes, but=key)
        self._reserved[key] = nbytes
        return leaves

    def take(
        self, key: K, nbytes: int, rate: Rate, likelihood: float, pins: int = 0
    ) -> tuple[K, ...]:
        """`key` is there, with so many bytes, in the place of what was reserved; what leaves.
        Raises as `reserve` does."""
        self.release(key)
        leaves = self._make_room(nbytes, but=key)
        self._shares[key] = Share(nbytes, rate, likelihood, next(self._uses), pins)
        return leaves

    def release(self, key: K) -> None:
        """What `key` had or had reserved is free."""
        self._shares.pop(key, None)
        self._reserved.pop(key, None)

    def resize(self, bound: int) -> tuple[K, ...]:
        """From now on there are `bound` bytes; what leaves. What is pinned may be more."""
        self.bound = bound
        return self._leave(bound - sum(self._reserved.values()))

    def use(self, key: K) -> None:
        self._shares[key].used = next(self._uses)

    def expect(self, key: K, likelihood: float) -> None:
        """How likely `key` is wanted again."""
        self._shares[key].likelihood = likelihood

    def pin(self, key: K, by: int = 1) -> None:
        """`key` stays until it is unpinned (by -1) as often. Raises `KeyError`."""
        self._shares[key].pins += by

    def pinned(self, key: K) -> bool:
        return self._shares[key].pins > 0

    def _make_room(self, nbytes: int, but: K) -> tuple[K, ...]:
        reserved = sum(other for key, other in self._reserved.items() if key != but)
        room = self.bound - reserved - nbytes
        stays = sum(share.nbytes for share in self._shares.values() if share.pins)
        if self._strict and stays > room:
            raise NoRoom(self.name, nbytes, self.bound, stays + reserved)
        return self._leave(room)

    def _leave(self, room: int) -> tuple[K, ...]:
        """What leaves, so that what is there takes no more than `room`."""
        if sum(share.nbytes for share in self._shares.values()) <= room:
            return ()
        leaves = evict((self._held(key, share) for key, share in self._shares.items()), room).leaves
        for key in leaves:
            del self._shares[key]
        self.evictions += len(leaves)
        return leaves

    @staticmethod
    def _held(key: K, share: Share) -> Resident[K]:
        worth = share.rate.seconds_per_byte
        return Resident(key, share.nbytes, share.used, worth, share.likelihood, share.pins > 0)
