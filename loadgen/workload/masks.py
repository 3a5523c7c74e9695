"""How much of an image edits mask, as in production. Pure.

Three kinds of use, of which mean and percentiles of the mask ratio are known (derived from what
InstGenIE, arXiv 2505.20600, published):

| kind | mean | p50 | p90 | p95 | drawn from | mean and p95 then |
|---|---|---|---|---|---|---|
| face swap | 0.112 | 0.095 | 0.208 | 0.245 | log-normal, sigma 0.60 | 0.114, 0.255 |
| detail fixing | 0.029 | 0.023 | | 0.065 | log-normal, sigma 0.62 | 0.028, 0.064 |
| inpainting | 0.354 | 0.221 | 0.873 | 0.916 | straight lines between quantiles | 0.354, 0.916 |
"""

from collections.abc import Callable
from itertools import pairwise
from math import log
from random import Random
from typing import Final, Literal

MaskUse = Literal["face_swap", "detail_fixing", "inpainting"]

LEAST: Final = 0.002
"""No mask covers less of a image,"""
MOST: Final = 1.0
"""nor more."""
INPAINTING: Final = (
    (0.0, 0.005),
    (0.5, 0.221),
    (0.75, 0.56),
    (0.9, 0.873),
    (0.95, 0.916),
    (1.0, 1.0),
)
"""Shares of all masks that cover at most so much; the one at 0.75 makes the mean right."""


def face_swap(lot: Random) -> float:
    return _within(lot.lognormvariate(log(0.095), 0.60))


def detail_fixing(lot: Random) -> float:
    return _within(lot.lognormvariate(log(0.023), 0.62))


def inpainting(lot: Random) -> float:
    place = lot.random()
    for (below, low), (above, high) in pairwise(INPAINTING):
        if place <= above:
            return low + (high - low) * (place - below) / (above - below)
    return MOST


def _within(ratio: float) -> float:
    return min(MOST, max(LEAST, ratio))


USES: Final[dict[MaskUse, Callable[[Random], float]]] = {
    "face_swap": face_swap,
    "detail_fixing": detail_fixing,
    "inpainting": inpainting,
}
"""Each draws the masked part of a image, by lot."""
