"""Read a picture back into its attributes, without being told what it should show.

The background comes from the corners, which no shape reaches. Every other pixel belongs to the
nearest place. What stands out there is compared with templates of every shape and size.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pocket.render import Field, coverage
from pocket.scenes import BACKGROUNDS, CENTRES, COLOURS, PLACES, RADIUS, SHAPES, SIDE, Item, Scene

UNKNOWN: Final = "unknown"

_CONTRAST = 38.0  # RGB distance from the background; about half of the palette's smallest
_SMALLEST = 70  # pixels; the smallest shape, a small ring, covers about 200
_BEST_COLOUR = 60.0  # RGB distance beyond which a colour is none of the palette's
_BEST_OVERLAP = 0.55  # soft intersection over union below which a blob is no shape
_HALF = 24  # half the side of a template, pixels
_CORNER = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows: at most one shape at each place; UNKNOWN where it fits nothing."""

    items: tuple[Item, ...]
    background: str

    def at(self, place: str) -> Item | None:
        """The shape read at a place, or None where the background shows."""
        return next((item for item in self.items if item.place == place), None)


def read(image: NDArray[np.uint8]) -> Reading:
    """Read (SIDE, SIDE, 3) sRGB bytes."""
    pixels = image.astype(np.float32)
    ends = np.r_[0:_CORNER, SIDE - _CORNER : SIDE]
    ground = np.median(pixels[np.ix_(ends, ends)].reshape(-1, 3), axis=0)
    mask = np.linalg.norm(pixels - ground, axis=-1) > _CONTRAST
    found = (
        _read_place(place, pixels, ground, mask & (_cells() == n)) for n, place in enumerate(PLACES)
    )
    return Reading(tuple(item for item in found if item), _nearest(ground, BACKGROUNDS))


def _read_place(place: str, pixels: Field, ground: Field, mask: NDArray[np.bool_]) -> Item | None:
    if mask.sum() < _SMALLEST:
        return None
    core = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    inner = pixels[1:-1, 1:-1][core] if core.sum() >= 12 else pixels[mask]
    ink = np.median(inner, axis=0)
    step = ink - ground
    alpha = np.clip(((pixels - ground) * step).sum(-1) / (step * step).sum(), 0.0, 1.0) * _grown(
        mask
    )
    shape, size = _nearest_template(_centred(alpha))
    return Item(size, _nearest(ink, COLOURS), shape, place)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel wider, so that the anti-aliased rim counts and far noise does not."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide


def _centred(alpha: Field) -> Field:
    """A (2 * _HALF)-sided window around the centroid, flattened."""
    total = alpha.sum()
    rows, columns = alpha.sum(1) @ np.arange(SIDE), alpha.sum(0) @ np.arange(SIDE)
    top, left = round(float(rows / total)), round(float(columns / total))
    padded = np.pad(alpha, _HALF)
    return padded[top : top + 2 * _HALF, left : left + 2 * _HALF].ravel()


def _nearest_template(alpha: Field) -> tuple[str, str]:
    names, templates = _templates()
    overlaps = np.minimum(alpha, templates).sum(1) / np.maximum(alpha, templates).sum(1)
    best = int(overlaps.argmax())
    shape, size = names[best]
    return (shape if overlaps[best] >= _BEST_OVERLAP else UNKNOWN), size


@lru_cache(maxsize=1)
def _templates() -> tuple[list[tuple[str, str]], Field]:
    """(shape, size) of each template, and their coverages as (templates, pixels)."""
    axis = np.arange(-_HALF, _HALF, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    names, rows = [], []
    for shape in SHAPES:
        for size, radius in RADIUS.items():
            for scale in (0.95, 1.0, 1.05):
                for rotation in (-0.12, 0.0, 0.12):
                    names.append((shape, size))
                    rows.append(coverage(shape, x, y, radius * scale, rotation).ravel())
    return names, np.stack(rows)


@lru_cache(maxsize=1)
def _cells() -> NDArray[np.intp]:
    """The index of the nearest place for each pixel, (SIDE, SIDE)."""
    axis = np.arange(SIDE) + 0.5
    reach = [np.hypot(axis[None, :] - x, axis[:, None] - y) for x, y in CENTRES.values()]
    nearest: NDArray[np.intp] = np.stack(reach).argmin(0)
    return nearest


def _nearest(colour: Field, palette: dict[str, tuple[int, int, int]]) -> str:
    name = min(palette, key=lambda name: float(np.linalg.norm(colour - palette[name])))
    return name if np.linalg.norm(colour - palette[name]) <= _BEST_COLOUR else UNKNOWN


def score(wanted: Scene, seen: Reading) -> dict[str, list[bool]]:
    """Which wanted attributes a picture shows, by kind of attribute.

    A missing shape loses its place, shape, colour and size; a spurious one makes the count wrong.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    right["background"].append(wanted.background == seen.background)
    right["count"].append(len(wanted.items) == len(seen.items))
    for item in wanted.items:
        there = seen.at(item.place)
        right["place"].append(there is not None)
        for kind in ("shape", "colour", "size"):
            right[kind].append(there is not None and getattr(there, kind) == getattr(item, kind))
    return dict(right)


def accuracy(scores: list[dict[str, list[bool]]]) -> dict[str, float]:
    """The share of right attributes over many pictures, by kind and under `all`."""
    pooled: dict[str, list[bool]] = defaultdict(list)
    for one in scores:
        for kind, right in one.items():
            pooled[kind] += right
            pooled["all"] += right
    return {kind: sum(right) / len(right) for kind, right in pooled.items()}
