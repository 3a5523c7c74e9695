"""Rounds of a measurement, as many as fit into the time that there is."""

import time
from collections.abc import Iterator


class Budget:
    """Seconds from now on."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._ends - time.monotonic()

    def rounds(self, most: int, seconds: float) -> Iterator[int]:
        """Numbers of rounds from 0, which does not count, to `most`; no further one begins that,
        taking as long as the longest before it, would not end within `seconds` of now, nor within
        the budget. Rounds 0 and 1 always take place."""
        ends = min(time.monotonic() + seconds, self._ends)
        longest = 0.0
        for number in range(most + 1):
            began = time.monotonic()
            if number > 1 and began + longest > ends:
                return
            yield number
            longest = max(longest, time.monotonic() - began)
