"""One number a style that tells its pictures from plain ones, given what scene they show.

Each looks at where the scene's shapes lie, jitter aside, and gives one value for each shape
that is thick enough to tell; the number of a set of pictures is the mean of all of them.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pocket.render import STILL, Field, lay_out
from pocket.scenes import COLOURS, SIDE, Scene

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_DEEP = 6.0  # pixels from the edge, beyond an outline and the jitter
_INNER = 2.5  # pixels from the edge, beyond the jitter
_FEWEST = 24  # pixels that a value is worth taking from


def hollow(scene: Scene, image: NDArray[np.uint8]) -> list[float]:
    """The share of each shape's inside that is more like the background than the colour."""
    pixels, ground = image.astype(np.float32), corners(image)
    out = []
    for colour, d in _shapes(scene):
        inside = pixels[d < -_DEEP]
        if len(inside) >= _FEWEST:
            to_ground = np.linalg.norm(inside - ground, axis=-1)
            to_colour = np.linalg.norm(inside - np.array(COLOURS[colour]), axis=-1)
            out.append(float((to_ground < to_colour).mean()))
    return out


def banded(scene: Scene, image: NDArray[np.uint8]) -> list[float]:
    """How much brightness changes from row to row in each shape: deviation, 0 to 255."""
    luma = image.astype(np.float32) @ _LUMA
    out = []
    for _, d in _shapes(scene):
        inside = d < -_INNER
        rows = [float(luma[y][inside[y]].mean()) for y in range(SIDE) if inside[y].any()]
        out.append(float(np.std(rows)))
    return out


def glowing(scene: Scene, image: NDArray[np.uint8]) -> list[float]:
    """How much brighter it is 3 to 8 pixels around each shape than in the corners, 0 to 255."""
    luma, dark = image.astype(np.float32) @ _LUMA, float(corners(image) @ _LUMA)
    fields = [d for _, d in _shapes(scene)]
    nearest = np.min(np.stack(fields), axis=0)
    return [float(luma[(d == nearest) & (d > 3) & (d < 8)].mean()) - dark for d in fields]


def saturated(scene: Scene, image: NDArray[np.uint8]) -> list[float]:
    """The mean saturation (as HSV's, 0 to 1) of each shape."""
    pixels = image.astype(np.float32)
    saturation = 1 - pixels.min(-1) / np.maximum(pixels.max(-1), 1.0)
    return [float(saturation[d < -_INNER].mean()) for _, d in _shapes(scene)]


def corners(image: NDArray[np.uint8]) -> Field:
    """The background's sRGB (3,), from the four corners, which no shape reaches."""
    ends = np.r_[0:10, SIDE - 10 : SIDE]
    ground: Field = np.median(image[np.ix_(ends, ends)].reshape(-1, 3).astype(np.float32), axis=0)
    return ground


STATISTICS: Final[dict[str, Callable[[Scene, NDArray[np.uint8]], list[float]]]] = {
    "outline": hollow,
    "stripes": banded,
    "neon": glowing,
    "pastel": saturated,
}


def measure(style: str, scenes: list[Scene], images: list[NDArray[np.uint8]]) -> float:
    """The style's number over pictures of these scenes, one each.

    Raises ValueError where no shape is thick enough to tell.
    """
    pairs = zip(scenes, images, strict=True)
    values = [value for scene, image in pairs for value in STATISTICS[style](scene, image)]
    if not values:
        raise ValueError(f"no shape of {len(scenes)} scenes tells {style!r} from plain")
    return float(np.mean(values))


def _shapes(scene: Scene) -> Iterator[tuple[str, Field]]:
    """The colour's name and the signed distances of each shape, where it lies without jitter."""
    placed = lay_out(scene, random.Random(0), STILL).shapes
    return ((item.colour, p.distance()) for item, p in zip(scene.items, placed, strict=True))
