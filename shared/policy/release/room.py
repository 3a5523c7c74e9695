"""Places in processes for rows that have no time to be finished by. Pure."""

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Final, cast

from shared.policy.release.load import ProcessLoad
from shared.policy.reported_load import ends

HORIZON: Final = 0.5
"""Seconds before a process has room at which it is given the next job."""


class Room:
    """`given`: places by process that others get, which may become more."""

    def __init__(
        self,
        loads: Sequence[ProcessLoad],
        now: float,
        by_load: Sequence[tuple[float, int]],
        given: Counter[int],
    ) -> None:
        self._free = [_free(load, now) for load in loads]
        self._given = given
        self._heap = [each for each in by_load if self._free[each[1]] > 0]

    def __repr__(self) -> str:
        return f"<Room in {len(self._heap)} processes>"

    def take(self, seconds: float) -> bool:
        """One, in the process that has least to do; it has so much more to do then."""
        while self._heap:
            least, number = self._heap[0]
            if self._free[number] <= self._given[number]:
                heapq.heappop(self._heap)
                continue
            self._free[number] -= 1
            heapq.heapreplace(self._heap, (least + seconds, number))
            return True
        return False


def _free(load: ProcessLoad, now: float) -> int:
    """Rows without a deadline that it may be given now, counting on those that are done within
    `HORIZON`. The last quarter of its places is left for rows that are promised a time; of these
    places rows that come early may take half."""
    kept = load.max_rows // 4
    if not load.rows:
        return load.max_rows - kept - load.count
    soon = bisect_right(_ends(load), max(0.0, now - load.at) + HORIZON)
    early = min(soon, kept // 2 if kept else 1)
    return load.max_rows - kept - load.count + early


def _ends(load: ProcessLoad) -> Sequence[float]:
    """When each of its rows is finished, in order, in seconds since it reported them. Computed once
    for each report."""
    found = load.memo.get(_ends)
    if found is None:
        found = load.memo[_ends] = [end for _, end in ends(load.rows, load.cost)]
    return cast(Sequence[float], found)
