"""Scenes of one to three coloured shapes: the vocabulary, the types, the sampling, the split."""

import hashlib
import random
from dataclasses import dataclass
from itertools import combinations
from typing import Final

SIDE: Final = 128
"""Pictures are SIDE x SIDE pixels."""

SHAPES: Final = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: Final = ("small", "large")
PLACES: Final = ("left", "right", "top", "bottom", "center")

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (226, 54, 54),
    "orange": (242, 130, 30),
    "yellow": (250, 216, 60),
    "green": (62, 165, 84),
    "cyan": (70, 200, 215),
    "blue": (52, 102, 220),
    "purple": (128, 58, 190),
    "pink": (240, 110, 170),
}
"""sRGB. Any two are at least 70 apart, and so is each from every background."""

BACKGROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    "white": (247, 246, 242),
    "black": (22, 22, 26),
    "grey": (140, 142, 146),
    "navy": (28, 40, 92),
    "sand": (222, 202, 162),
}

RADIUS: Final[dict[str, float]] = {"small": 11.0, "large": 18.0}
"""Nominal radius in pixels; jittered by a few per cent when rendered."""

CENTRES: Final[dict[str, tuple[float, float]]] = {
    "left": (22.0, 64.0),
    "right": (106.0, 64.0),
    "top": (64.0, 22.0),
    "bottom": (64.0, 106.0),
    "center": (64.0, 64.0),
}
"""Pixels, x then y. Large shapes at neighbouring places don't overlap, jitter included: at most
the corners of two triangles or stars meet."""

HELD_OUT_TENTHS: Final = 1
"""Tenths of all scenes that training never sees."""


@dataclass(frozen=True, slots=True)
class Item:
    """One shape of a scene."""

    size: str
    colour: str
    shape: str
    place: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} {self.place}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes at distinct places, in the order of PLACES, on one background."""

    items: tuple[Item, ...]
    background: str

    def __str__(self) -> str:
        """The canonical caption, e.g. `a large red circle left and a small ... on white`."""
        return f"{' and '.join(map(str, self.items))} on {self.background}"


def scene_of(items: list[Item], background: str) -> Scene:
    """A scene with its items in canonical order."""
    return Scene(tuple(sorted(items, key=lambda item: PLACES.index(item.place))), background)


def held_out(scene: Scene) -> bool:
    """Whether training must never see this scene: stable over machines and Python versions."""
    digest = hashlib.blake2b(str(scene).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10 < HELD_OUT_TENTHS


def sample_scene(rng: random.Random, count: int | None = None) -> Scene:
    """Any scene, held out or not, of `count` shapes (1 to 3, equally likely when None)."""
    places = rng.choice(list(combinations(PLACES, count or rng.randint(1, 3))))
    items = tuple(
        Item(rng.choice(SIZES), rng.choice(list(COLOURS)), rng.choice(SHAPES), place)
        for place in places
    )
    return Scene(items, rng.choice(list(BACKGROUNDS)))


def training_scene(rng: random.Random) -> Scene:
    """A scene that is not held out."""
    while held_out(scene := sample_scene(rng)):
        pass
    return scene


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """`count` distinct held-out scenes, one, two and three shapes in turn."""
    rng = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(rng, 1 + len(scenes) % 3)
        if held_out(scene) and scene not in scenes:
            scenes.append(scene)
    return scenes
