"""Sums over measurements. Pure."""

import itertools
from collections.abc import Sequence
from statistics import median
from typing import Final

MILLISECONDS: Final = 1000.0


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest of the sorted values, by linear interpolation."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100.0
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95, in milliseconds."""
    return {
        "p50_ms": round(median(seconds) * MILLISECONDS, 3),
        "p95_ms": round(percentile(seconds, 95) * MILLISECONDS, 3),
    }


def between(times: Sequence[float]) -> list[float]:
    """From each of `times` until the next."""
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def mean_rows(rows: Sequence[int]) -> float:
    """Rows in the mean step, from one entry per row and step that says how many rows shared it.

    A step of k rows has k entries of k, so the inverses of all entries add up to the steps."""
    return len(rows) / sum(1.0 / count for count in rows)
