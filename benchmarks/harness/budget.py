"""Rounds of a measurement, as many as fit into the time that there is."""

import time
from collections.abc import Iterator


def rounds_within(seconds: float, most: int) -> Iterator[int]:
    """Numbers of rounds from 0, which does not count, to `most`; no further one begins that, taking
    as long as the longest before it, would not end within `seconds` of now. Rounds 0 and 1 always
    take place."""
    ends, longest = time.monotonic() + seconds, 0.0
    for number in range(most + 1):
        began = time.monotonic()
        if number > 1 and began + longest > ends:
            return
        yield number
        longest = max(longest, time.monotonic() - began)
