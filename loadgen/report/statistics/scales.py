"""Round numbers for axes, bins and intervals. Pure."""

from math import ceil, floor, log10
from typing import Final

MANTISSAS: Final = (1.0, 2.0, 5.0, 10.0)
HAIR: Final = 1e-9
"""Relative slack, so that 0.3 / 0.1 needs three steps and not four."""


def nice_width(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten of which `most` cover `span` (above 0)."""
    raw = span / most
    power = 10.0 ** floor(log10(raw))
    return next(m * power for m in MANTISSAS if m * power >= raw * (1 - HAIR))


def covering(span: float, width: float) -> int:
    """How many intervals of `width` cover `span`; one at least."""
    return max(1, ceil(span / width * (1 - HAIR)))


def ticks(high: float, most: int = 5) -> list[float]:
    """Evenly spaced round values from 0 to the first at or above `high` (above 0)."""
    width = nice_width(high, most)
    return [i * width for i in range(covering(high, width) + 1)]
