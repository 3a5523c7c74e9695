"""Which jobs end next by their own deadline. Pure but for its memory, which a restart may lose:
whoever runs a node of an expired job ends it as well, only later."""

import heapq
from typing import Final

MAX_WATCHED: Final = 100_000
"""Jobs that are remembered; the deadlines of further ones are left to those who run them."""


class Deadlines:
    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._heap)}/{MAX_WATCHED} jobs>"

    def add(self, deadline: float, job_id: str) -> None:
        if len(self._heap) < MAX_WATCHED:
            heapq.heappush(self._heap, (deadline, job_id))

    def passed(self, now: float) -> list[str]:
        """The jobs whose deadline (Unix seconds) is over by `now`; each is named once."""
        over: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            over.append(heapq.heappop(self._heap)[1])
        return over
