"""Which units of an arena are free. Pure bookkeeping: no file, no lock."""

from collections import defaultdict


def size_class(units: int) -> int:
    """`units` rounded up to a size that others will ask for too: at most a quarter more."""
    step = 1 << max(0, units.bit_length() - 3)
    return -(-units // step) * step


class Extents:
    """Hands out runs of the units `0 .. limit`. Freed runs are kept by size, and the one freed
    last is handed out first, because its memory is warm; only when that finds nothing are free
    neighbours merged and split anew. `limit` may be raised at any time."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.end = 0
        """One past the highest unit in use, or in a free run."""
        self._free: dict[int, list[int]] = defaultdict(list)
        """Size of a free run -> where such runs start, the one freed last at the end."""

    def take(self, size: int) -> int | None:
        """The first unit of a run of `size`, or None if there is no such run."""
        if warm := self._free.get(size):
            return warm.pop()
        start = self._extend(size)
        if start is None:
            self._merge()
            start = self._split(size)
        return self._extend(size) if start is None else start

    def give(self, start: int, size: int) -> None:
        """Take back the run of `size` that began at `start`."""
        self._free[size].append(start)

    def _extend(self, size: int) -> int | None:
        if self.end + size > self.limit:
            return None
        start, self.end = self.end, self.end + size
        return start

    def _merge(self) -> None:
        runs = sorted((start, size) for size, starts in self._free.items() for start in starts)
        self._free.clear()
        merged: list[tuple[int, int]] = []
        for start, size in runs:
            if merged and sum(merged[-1]) == start:
                start, size = merged[-1][0], merged.pop()[1] + size
            merged.append((start, size))
        if merged and sum(merged[-1]) == self.end:
            self.end = merged.pop()[0]
        for start, size in merged:
            self.give(start, size)

    def _split(self, size: int) -> int | None:
        best = min((run for run, starts in self._free.items() if starts and run >= size), default=0)
        if best == 0:
            return None
        start = self._free[best].pop()
        if best > size:
            self.give(start + size, best - size)
        return start
