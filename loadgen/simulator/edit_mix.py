"""Edits as production has them (`loadgen/workload/masks.py`), and when they come. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from loadgen.workload.masks import detail_fixing, face_swap, inpainting


@dataclass(frozen=True, slots=True)
class Edit:
    at: float
    """Seconds since the start."""
    mask: float
    """Share of the image that is edited."""


def mixed(lot: Random) -> float:
    """Each kind equally often."""
    return lot.choice((face_swap, detail_fixing, inpainting))(lot)


MIXES: Final[dict[str, Callable[[Random], float]]] = {
    "face swap": face_swap,
    "detail fixing": detail_fixing,
    "inpainting": inpainting,
    "mixed": mixed,
}


def arrivals(masks: Sequence[float], rate: float, lot: Random) -> list[Edit]:
    """An edit for each of `masks`, `rate` a second in the mean, independent of each other."""
    edits, now = [], 0.0
    for mask in masks:
        now += lot.expovariate(rate)
        edits.append(Edit(now, mask))
    return edits


def zipf(count: int) -> list[float]:
    """How often each of `count` things is asked for: the k-th 1/k times as often as the first."""
    return [1.0 / place for place in range(1, count + 1)]
