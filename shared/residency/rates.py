"""How fast bytes come: as fast as was seen, or no faster than is allowed."""

from typing import Final

BYTES_PER_SECOND: Final = 2e9
"""Before anything was brought."""
MEMORY: Final = 64
"""The measured rate follows about so many loads."""
SLACK_SECONDS: Final = 0.02
"""A sender that wakes up late may catch up on so much."""


class Rate:
    """What it takes to bring a byte one way, as measured: of all items that come that way."""

    def __init__(self, bytes_per_second: float = BYTES_PER_SECOND) -> None:
        """`bytes_per_second`: what is believed until something was brought."""
        self.seconds_per_byte = 1.0 / bytes_per_second
        self._loads = 0

    def __repr__(self) -> str:
        return f"<Rate {1e-6 / self.seconds_per_byte:.1f} MB/s, of {self._loads} loads>"

    @property
    def measured(self) -> float:
        """Bytes a second; 0 before anything was brought."""
        return 1.0 / self.seconds_per_byte if self._loads else 0.0

    def seconds(self, nbytes: int) -> float:
        return self.seconds_per_byte * nbytes

    def observe(self, nbytes: int, seconds: float) -> None:
        """A load of `nbytes` took `seconds`: a mean of the first ones, then of the latest."""
        if nbytes > 0:
            self._loads += 1
            weight = 1.0 / min(self._loads, MEMORY)
            self.seconds_per_byte += weight * (seconds / nbytes - self.seconds_per_byte)


class Pace:
    """When bytes of one source are through, at `rate` bytes a second for all who ask. No clock."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._through = 0.0

    def wait(self, nbytes: int, now: float) -> float:
        """Seconds from `now` until `nbytes` more are through."""
        begins = max(self._through, now - SLACK_SECONDS)
        self._through = begins + nbytes / self._rate
        return max(0.0, self._through - now)
