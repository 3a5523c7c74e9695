"""What a control is given: pictures that say where things are, drawn from a layout.

`python -m pocket.hints CAPTION --kind edges --out edges.png` draws the one of a caption.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocket.captions import parse
from pocket.render import Field, Layout, draw, lay_out, to_bytes
from pocket.scenes import SIDE

Hint = NDArray[np.float32]

BLOCK = 16  # side of a colour block, pixels
LINE = 1.0  # half the width of an edge, pixels
FLOOR, SLOPE = 0.4, 12.0  # height at a shape's edge; pixels inwards until it reaches 1


def edges(layout: Layout) -> Hint:
    """White lines of two pixels along every shape's edge, on black."""
    lines = [np.clip(LINE + 0.5 - np.abs(s.distance()), 0.0, 1.0) for s in layout.shapes]
    return _grey(lines)


def blocks(layout: Layout) -> Hint:
    """The mean colour of each BLOCK x BLOCK pixels of the picture."""
    count = SIDE // BLOCK
    picture = draw(layout).astype(np.float32) / 255
    means: Hint = picture.reshape(count, BLOCK, count, BLOCK, 3).mean((1, 3))
    return means.repeat(BLOCK, 0).repeat(BLOCK, 1)


def shading(layout: Layout) -> Hint:
    """Heights, as a depth map has them: black ground, shapes that rise from their edges inwards."""
    heights = []
    for shape in layout.shapes:
        d = shape.distance()
        height = FLOOR + (1 - FLOOR) * np.clip(-d / SLOPE, 0.0, 1.0)
        heights.append(height * np.clip(0.5 - d, 0.0, 1.0))
    return _grey(heights)


HINTS: Final[dict[str, Callable[[Layout], Hint]]] = {
    "edges": edges,
    "blocks": blocks,
    "shading": shading,
}
"""Each draws a layout as (SIDE, SIDE, 3) RGB, 0 to 1."""


def _grey(fields: Sequence[Field]) -> Hint:
    """The largest of (SIDE, SIDE) fields at each pixel, in three equal channels."""
    largest = np.max(np.stack(fields), axis=0).astype(np.float32)
    return np.repeat(largest[..., None], 3, axis=2)


def main() -> None:
    """Write the hint of a caption; the seed says where exactly its shapes are."""
    parser = argparse.ArgumentParser(prog="python -m pocket.hints", description=main.__doc__)
    parser.add_argument("caption", help="such as: a large red circle left on white")
    parser.add_argument("--kind", choices=HINTS, default="edges")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="png, jpg or webp")
    options = parser.parse_args()
    try:
        layout = lay_out(parse(options.caption), random.Random(options.seed))
        Image.fromarray(to_bytes(HINTS[options.kind](layout) * 255)).save(options.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
