"""What was used last, as much of it as there is room for."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Values by key that weigh at most `bound` together, but one in any case. A weight is a value's
    bytes, or 1. Not thread-safe."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.weight = self.evictions = 0
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"<LruCache {len(self)} values, {self.weight}/{self.bound}>"

    def get(self, key: K) -> V | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """In the place of what has this key; what was not used for longest leaves."""
        self.weight += weight - self._held.pop(key, (None, 0))[1]
        self._held[key] = (value, weight)
        while self.weight > self.bound and len(self._held) > 1:
            _, (_, freed) = self._held.popitem(last=False)
            self.weight -= freed
            self.evictions += 1
