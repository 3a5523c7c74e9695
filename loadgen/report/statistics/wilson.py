"""How sure one can be of a share that was counted in a sample."""

from math import sqrt
from typing import Final

Z95: Final = 1.959963984540054
"""Standard deviations that hold 95% of a normal distribution, both sides together."""


def wilson(met: int, of: int, z: float = Z95) -> tuple[float, float]:
    """The score interval for a share of `met` in `of` (Wilson 1927): unlike the usual one it stays
    within 0 and 1 and holds for shares near them. (0, 1) where nothing was counted."""
    if of == 0:
        return 0.0, 1.0
    p, n = met / of, of
    middle = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exact where all or none were met; rounding would miss them by a hair.
    low = 0.0 if met == 0 else (middle - half) / scale
    high = 1.0 if met == of else (middle + half) / scale
    return low, high
