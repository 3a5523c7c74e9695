"""Other ways to draw a scene: what the style LoRAs are taught."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pocket.render import Field, Layout, draw, to_bytes
from pocket.scenes import SIDE

BORDER = 4.0  # width of an outline, pixels
BAND = 9.0  # height of a stripe, pixels: finer ones do not survive the autoencoder
GLOW_REACH, GLOW_PEAK = 9.0, 0.7  # pixels until the glow falls to 1/e; its share at the edge
NIGHT = (8.0, 8.0, 12.0)  # sRGB of the neon style's background
LIGHTER = 0.8  # how far towards white the second stripe goes
PALE, PALER = 0.6, 0.9  # how far towards white pastel shapes and backgrounds go


def outline(layout: Layout) -> NDArray[np.uint8]:
    """Only each shape's border in its colour: the inside shows the background."""
    image = _blank(layout.background)
    for shape in layout.shapes:
        d = shape.distance()
        alpha = np.clip(np.minimum(0.5 - d, 0.5 + d + BORDER), 0.0, 1.0)[..., None]
        image += alpha * (shape.colour - image)
    return to_bytes(image)


def stripes(layout: Layout) -> NDArray[np.uint8]:
    """Level stripes: the colour above the centre, a lighter one below it, and so on."""
    image = _blank(layout.background)
    for shape in layout.shapes:
        y = np.arange(SIDE, dtype=np.float32) + 0.5 - shape.y
        phase = (y + BAND / 2) % (2 * BAND)
        to_edge = np.abs(phase - BAND) - BAND / 2  # signed, negative in the lighter stripes
        light = LIGHTER * np.clip(0.5 - to_edge, 0.0, 1.0)[:, None, None]
        alpha = np.clip(0.5 - shape.distance(), 0.0, 1.0)[..., None]
        image += alpha * (shape.colour + light * (255.0 - shape.colour) - image)
    return to_bytes(image)


def neon(layout: Layout) -> NDArray[np.uint8]:
    """The brightest colours of the same hues on black, with a glow around them."""
    image = _blank(np.array(NIGHT, np.float32))
    for shape in layout.shapes:
        d = shape.distance()
        glow = GLOW_PEAK * np.exp(-np.maximum(d, 0.0) / GLOW_REACH)
        light = np.maximum(np.clip(0.5 - d, 0.0, 1.0), glow)[..., None]
        image = np.maximum(image, light * (shape.colour * (255.0 / shape.colour.max())))
    return to_bytes(image)


def pastel(layout: Layout) -> NDArray[np.uint8]:
    """Every colour washed out towards white, the background's nearly to it."""
    shapes = (replace(shape, colour=_paler(shape.colour, PALE)) for shape in layout.shapes)
    return draw(Layout(_paler(layout.background, PALER), tuple(shapes)))


STYLES: Final[dict[str, Callable[[Layout], NDArray[np.uint8]]]] = {
    "outline": outline,
    "stripes": stripes,
    "neon": neon,
    "pastel": pastel,
}
"""Each draws a layout as (SIDE, SIDE, 3) sRGB bytes, its shapes where `draw` puts them."""


def _blank(colour: Field) -> Field:
    image = np.empty((SIDE, SIDE, 3), np.float32)
    image[:] = colour
    return image


def _paler(colour: Field, share: float) -> Field:
    return colour + share * (255.0 - colour)
