"""The moments between which a crash must lose nothing, by name.

`reached` does nothing in production. `tests/chaos` sets `hook` in the processes it starts, to end
or hold them at exactly these moments: killing at random finds the rare ones too seldom to prove
anything.
"""

from collections.abc import Callable
from typing import Final, Literal, get_args

Point = Literal[
    "write.before",
    "write.after",
    "advance.before",
    "advance.after",
    "publish.before",
    "publish.after",
    "commit.before",
    "commit.after",
    "ack.before",
    "ack.after",
    "checkpoint.before",
    "checkpoint.after",
    "release.before",
    "release.after",
]
"""`write`: a tensor into the arena. `advance`: a record by compare-and-set. `publish`: a node into
its queue. `commit`: an image or an outcome into the results. `ack`: a delivery. `checkpoint`: a
row's state into its record. `release`: word to an arena that a job ended."""

POINTS: Final[tuple[Point, ...]] = get_args(Point)

hook: Callable[[Point], None] | None = None


def reached(point: Point) -> None:
    if hook is not None:
        hook(point)
