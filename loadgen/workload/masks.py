"""How much of an image edits mask, as production traces show it (FlashPS, arXiv 2505.20600).

Each use is a quantile function, linear between knots. Knots at published percentiles are the
published values; the ends, and the knot at 0.7 of inpainting, are chosen so that the mean is the
published one as well.
"""

from itertools import pairwise
from random import Random
from typing import Final, Literal

MaskUse = Literal["face_swap", "detail_fixing", "inpainting"]

Knots = tuple[tuple[float, float], ...]
"""(probability, mask ratio), both ascending, from probability 0 to 1."""

KNOTS: Final[dict[MaskUse, Knots]] = {
    "face_swap": ((0, 0.0108), (0.5, 0.095), (0.9, 0.208), (0.95, 0.245), (1, 0.300)),
    "detail_fixing": ((0, 0.0004), (0.5, 0.023), (0.95, 0.065), (1, 0.069)),
    "inpainting": (
        (0, 0.010),
        (0.5, 0.221),
        (0.7, 0.4736),
        (0.9, 0.873),
        (0.95, 0.916),
        (1, 0.980),
    ),
}


def quantile(use: MaskUse, probability: float) -> float:
    """The mask ratio that a share of `probability` (0 to 1) of edits stays below."""
    for (p0, r0), (p1, r1) in pairwise(KNOTS[use]):
        if probability <= p1:
            return r0 + (r1 - r0) * (probability - p0) / (p1 - p0)
    raise ValueError(f"probability {probability} is not within 0 and 1")


def mean(use: MaskUse) -> float:
    """Of the whole distribution: the integral of the quantile function."""
    return sum((p1 - p0) * (r0 + r1) / 2 for (p0, r0), (p1, r1) in pairwise(KNOTS[use]))


def draw(use: MaskUse, random: Random) -> float:
    return quantile(use, random.random())
