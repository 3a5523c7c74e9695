"""Paint a scene with anti-aliased edges, from signed distances (numpy only)."""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocket.scenes import BACKGROUNDS, CENTRES, COLOURS, RADIUS, SIDE, Scene

Field = NDArray[np.floating[Any]]

_SECTOR = 2 * math.pi / 5
_REACH = 24  # half-width in pixels of the window a shape is painted in; > any shape's extent


@dataclass(frozen=True, slots=True)
class Jitter:
    """How far a painted scene may stray from the nominal one: small enough to stay readable."""

    position: float = 1.5  # pixels, each axis
    size: float = 0.05  # fraction of the radius
    rotation: float = 0.14  # radians, about 8 degrees
    shade: float = 0.05  # fraction of each channel, the same for all three


STILL = Jitter(0.0, 0.0, 0.0, 0.0)


def distance(shape: str, x: Field, y: Field, radius: float) -> Field:
    """Signed distance in pixels to a shape's edge, negative inside; y grows downwards.

    Shapes are scaled to look equally large, and are centred on their centroid.
    """
    match shape:
        case "circle":
            return np.hypot(x, y) - radius
        case "ring":
            return np.abs(np.hypot(x, y) - 0.74 * radius) - 0.27 * radius
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.86 * radius
        case "triangle":
            slopes = np.maximum(0.866 * x - 0.5 * y, -0.866 * x - 0.5 * y)
            return np.maximum(slopes, y) - 0.6 * radius
        case "cross":
            long, thick = 1.0 * radius, 0.34 * radius
            bar = np.maximum(np.abs(x) - long, np.abs(y) - thick)
            return np.minimum(bar, np.maximum(np.abs(x) - thick, np.abs(y) - long))
        case "star":
            return _star(x, y, 1.12 * radius, 0.5 * radius)
        case _:
            raise ValueError(f"unknown shape {shape!r}")


def _star(x: Field, y: Field, outer: float, inner: float) -> Field:
    """Five points upwards: fold the plane into half a sector, then measure to its one edge."""
    angle = np.arctan2(x, -y) % _SECTOR
    angle = np.minimum(angle, _SECTOR - angle)
    reach = np.hypot(x, y)
    edge_x, edge_y = inner * math.sin(_SECTOR / 2), inner * math.cos(_SECTOR / 2) - outer
    length = math.hypot(edge_x, edge_y)
    along, across = reach * np.sin(angle), reach * np.cos(angle) - outer
    signed: Field = (across * edge_x - along * edge_y) / length
    return signed


@dataclass(frozen=True, slots=True)
class Placed:
    """A shape exactly where a picture shows it, in pixels, radians and sRGB (3,), 0 to 255."""

    shape: str
    x: float
    y: float
    radius: float
    rotation: float
    colour: Field

    def distance(self) -> Field:
        """Signed distance in pixels from each pixel's centre, (SIDE, SIDE), negative inside."""
        axis = np.arange(SIDE, dtype=np.float32) + 0.5
        x, y = axis[None, :] - self.x, axis[:, None] - self.y
        return turned_distance(self.shape, x, y, self.radius, self.rotation)


@dataclass(frozen=True, slots=True)
class Layout:
    """A scene with its jitter drawn: the background's colour (3,), and the shapes in order."""

    background: Field
    shapes: tuple[Placed, ...]


def lay_out(scene: Scene, rng: random.Random, jitter: Jitter | None = None) -> Layout:
    """Draw the jitter from `rng`: the same `rng` gives every style and hint the same places."""
    jitter = jitter or Jitter()
    background = _shaded(BACKGROUNDS[scene.background], rng, jitter)
    shapes = []
    for item in scene.items:
        x, y = (at + rng.uniform(-jitter.position, jitter.position) for at in CENTRES[item.place])
        radius = RADIUS[item.size] * (1 + rng.uniform(-jitter.size, jitter.size))
        rotation = rng.uniform(-jitter.rotation, jitter.rotation)
        colour = _shaded(COLOURS[item.colour], rng, jitter)
        shapes.append(Placed(item.shape, x, y, radius, rotation, colour))
    return Layout(background, tuple(shapes))


def turned_distance(shape: str, x: Field, y: Field, radius: float, rotation: float) -> Field:
    """`distance` to a shape turned by `rotation` radians."""
    cos, sin = math.cos(rotation), math.sin(rotation)
    return distance(shape, x * cos + y * sin, y * cos - x * sin, radius)


def coverage(shape: str, x: Field, y: Field, radius: float, rotation: float) -> Field:
    """The share of each pixel a shape covers, 0 to 1, at pixel offsets x and y."""
    share: Field = np.clip(0.5 - turned_distance(shape, x, y, radius, rotation), 0.0, 1.0)
    return share


def render(scene: Scene, rng: random.Random, jitter: Jitter | None = None) -> NDArray[np.uint8]:
    """The scene as (SIDE, SIDE, 3) sRGB bytes; `rng` draws the jitter."""
    return draw(lay_out(scene, rng, jitter))


def draw(layout: Layout) -> NDArray[np.uint8]:
    """A layout as (SIDE, SIDE, 3) sRGB bytes. Paints windows, since distances cost the most."""
    image = np.empty((SIDE, SIDE, 3), np.float32)
    image[:] = layout.background
    for it in layout.shapes:
        left, top = max(int(it.x) - _REACH, 0), max(int(it.y) - _REACH, 0)
        window = image[top : int(it.y) + _REACH, left : int(it.x) + _REACH]
        x = (np.arange(window.shape[1], dtype=np.float32) + (left + 0.5 - it.x))[None, :]
        y = (np.arange(window.shape[0], dtype=np.float32) + (top + 0.5 - it.y))[:, None]
        alpha = coverage(it.shape, x, y, it.radius, it.rotation)[..., None]
        window += alpha * (it.colour - window)
    return to_bytes(image)


def to_bytes(image: Field) -> NDArray[np.uint8]:
    """Rounded and clipped to sRGB bytes, from the same values as floats."""
    painted: NDArray[np.uint8] = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return painted


def _shaded(colour: tuple[int, int, int], rng: random.Random, jitter: Jitter) -> Field:
    shade = 1 + rng.uniform(-jitter.shade, jitter.shade)
    shaded: Field = np.clip(np.array(colour, np.float32) * shade, 0, 255)
    return shaded
