"""What was used last, as much of it as there is room for."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Values by key, of at most `max_bytes` together, but one in any case. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<LruCache {len(self._held)} values, {self._bytes}/{self._max_bytes} bytes>"

    def get(self, key: K) -> V | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: K, value: V, nbytes: int) -> None:
        """In the place of what has this key; what was not used for longest leaves."""
        self._bytes += nbytes - self._held.pop(key, (None, 0))[1]
        self._held[key] = (value, nbytes)
        while self._bytes > self._max_bytes and len(self._held) > 1:
            _, (_, freed) = self._held.popitem(last=False)
            self._bytes -= freed
