"""Virtual time: what was planned for the earliest moment happens next."""

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Events of one moment happen in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0

    def __repr__(self) -> str:
        return f"<Clock at {self.now:.3f} s, {len(self._events)} events>"

    def at(self, time: float, event: Callable[..., None], *about: Any) -> None:
        """Call `event(*about)` at `time`, or now if that is over."""
        self._planned += 1
        heapq.heappush(self._events, (max(time, self.now), self._planned, event, about))

    def after(self, seconds: float, event: Callable[..., None], *about: Any) -> None:
        self.at(self.now + seconds, event, *about)

    def run(self, until: float) -> None:
        """Until nothing is planned before that moment any more."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, event, about = heapq.heappop(events)
            event(*about)
