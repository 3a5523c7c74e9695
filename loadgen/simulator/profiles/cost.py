"""How long a component computes, by the size of its batch. Pure."""

from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

MOST_SECONDS: Final = 100_000.0

Seconds = Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
Units = Annotated[float, Meta(gt=0)]
"""Forwards of one image at the size that was measured; prompts, for text encoders."""


class Linear(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="linear"):
    """`fixed + per_unit * units` seconds: what was fitted to measurements."""

    fixed: Seconds
    per_unit: Seconds

    def seconds(self, units: float) -> float:
        return self.fixed + self.per_unit * units if units > 0 else 0.0


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="table"):
    """Measured points, ascending in units: straight lines between them and on beyond the last one,
    and below the first one what that one takes."""

    points: Annotated[tuple[tuple[Units, Seconds], ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Raises `ValueError` for points that are not ascending in units."""
        if any(later[0] <= earlier[0] for earlier, later in pairwise(self.points)):
            raise ValueError("points whose units ascend")

    def seconds(self, units: float) -> float:
        points = self.points
        if units <= 0:
            return 0.0
        if units <= points[0][0] or len(points) == 1:
            return points[0][1] * max(1.0, units / points[0][0])
        (a, low), (b, high) = next(
            (pair for pair in pairwise(points) if units <= pair[1][0]), points[-2:]
        )
        return max(0.0, low + (high - low) * (units - a) / (b - a))


Cost = Linear | Table


def chained(costs: tuple[Cost, ...]) -> Cost:
    """Of components that compute one after another on the same batch."""
    if len(costs) == 1:
        return costs[0]
    sizes: set[float] = {1.0, 2.0}
    for cost in costs:
        if isinstance(cost, Table):
            sizes |= {units for units, _ in cost.points}
    return Table(points=tuple((n, sum(c.seconds(n) for c in costs)) for n in sorted(sizes)))
