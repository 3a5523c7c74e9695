"""Pictures of held-out scenes to edit, and edits of them: one shape becomes another one. Pure, and
the same for a seed.

Both the shape and its colour change, so that nothing of what was there counts as right. The mask
covers the old shape and the new one; how much of the picture it covers is drawn as in production
(`edits.py`), as far as the shape lets it. What else lies in it is drawn anew as well: the prompt
says all of the new scene. Neither scene was seen in training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.pixels import png
from loadgen.simulator.edit_mix import mixed
from pocket.captions import paraphrase
from pocket.render import Jitter, render
from pocket.scenes import (
    CENTRES,
    COLOURS,
    RADIUS,
    SHAPES,
    SIDE,
    SIZES,
    Item,
    Scene,
    held_out,
    held_out_scenes,
    scene_of,
)
from shared.client import new_job_id
from shared.messages import GenerationRequest

SHAPES_AT_MOST: Final = 2
"""In a picture: the others' places are empty."""
STAR: Final = 1.12
"""What reaches furthest from its centre, in radii."""
MARGIN: Final = 1.0
"""Pixels of a mask beyond the furthest that its shape may reach."""
STRETCH: Final = 1.4
"""Most that a mask is wider than high, or higher than wide."""

Picture = NDArray[np.uint8]
"""(SIDE, SIDE, 3), sRGB."""
Mask = NDArray[np.bool_]
"""(SIDE, SIDE): drawn anew."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneEdit:
    scene: Scene
    """As it should be afterwards."""
    item: Item
    """What is new in it."""
    prompt: str
    mask: Mask

    @property
    def ratio(self) -> float:
        """Share of the picture that is drawn anew."""
        return float(self.mask.mean())


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """`picture` shows `scene`, painted as the training's pictures were."""

    scene: Scene
    picture: Picture

    def request(self, edit: SceneEdit, seed: int, mask_mode: str) -> GenerationRequest:
        """Under a new job id; steps and the rest as the model has them."""
        return GenerationRequest(
            job_id=new_job_id(),
            prompt=edit.prompt,
            image=png(Image.fromarray(self.picture)),
            mask=mask_png(edit.mask),
            mask_mode=mask_mode,
            seed=seed,
            width=SIDE,
            height=SIDE,
        )


def originals(count: int, seed: int) -> list[Original]:
    """Of one and two shapes, with at least two edits each. Raises `ValueError` if there are not so
    many."""
    lot = Random(seed)
    scenes = [
        scene
        for scene in held_out_scenes(2 * count + 2, seed)
        if len(scene.items) <= SHAPES_AT_MOST and len(changes(scene)) > 1
    ][:count]
    if len(scenes) < count:
        raise ValueError(f"{len(scenes)} scenes of {count} can be edited")
    return [Original(scene, render(scene, lot)) for scene in scenes]


def edit(scene: Scene, lot: Random, fits: Callable[[SceneEdit], bool]) -> SceneEdit:
    """The first by lot that `fits`."""
    while not fits(found := _drawn(scene, lot)):
        pass
    return found


def changes(scene: Scene) -> list[tuple[Item, Item, Scene]]:
    """What may become of one of its items: the old one, the new one, and then the scene. Held out
    all of them."""
    found = []
    for old in scene.items:
        others = [item for item in scene.items if item is not old]
        for size in SIZES:
            for colour in COLOURS:
                for shape in SHAPES:
                    new = Item(size, colour, shape, old.place)
                    after = scene_of([*others, new], scene.background)
                    if colour != old.colour and shape != old.shape and held_out(after):
                        found.append((old, new, after))
    return found


def reach(*items: Item) -> float:
    """Pixels from their place's centre that any of them, or the margin around it, may reach."""
    jitter = Jitter()
    radius = max(RADIUS[item.size] for item in items) * STAR * (1 + jitter.size)
    return radius + math.sqrt(2) * jitter.position + MARGIN


def mask_at(place: str, least: float, ratio: float, lot: Random) -> Mask:
    """The `ratio` of all pixels that are nearest to `place`, by the measure of an ellipse or a box
    by lot; all within `least` pixels of it in any case."""
    x, y = CENTRES[place]
    wide, high = lot.choice(((1.0, stretch := lot.uniform(1.0, STRETCH)), (stretch, 1.0)))
    axis = np.arange(SIDE) + 0.5
    across, down = np.abs(axis[None, :] - x) / wide, np.abs(axis[:, None] - y) / high
    box = lot.random() < 0.5
    distance = np.maximum(across, down) if box else np.hypot(across, down)
    enough = np.sort(distance, axis=None)[max(1, round(ratio * SIDE**2)) - 1]
    found: Mask = distance <= max(least, enough)
    return found


def token_share(masks: Sequence[Mask], side: int) -> float:
    """Of all tokens of `side` x `side` pixels, those that any of `masks` touches."""
    either = np.logical_or.reduce(masks)
    tokens = either.reshape(SIDE // side, side, SIDE // side, side).any(axis=(1, 3))
    return float(tokens.mean())


def mask_png(mask: Mask) -> bytes:
    """Fully transparent where the picture is drawn anew, black elsewhere."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., 3] = np.where(mask, 0, 255)
    return png(Image.fromarray(pixels))


def outside_difference(original: Picture, result: Picture, mask: Mask) -> int:
    """The largest, of 255, where the mask keeps the picture."""
    off = np.abs(original.astype(np.int16) - result)[~mask]
    return int(off.max(initial=0))


def _drawn(scene: Scene, lot: Random) -> SceneEdit:
    """The mask's size is drawn first, then an edit that fits into it, if there is one."""
    ratio, possible = mixed(lot), changes(scene)
    least = max(math.sqrt(ratio / math.pi) * SIDE, min(reach(o, n) for o, n, _ in possible))
    old, new, after = lot.choice([one for one in possible if reach(*one[:2]) <= least])
    mask = mask_at(new.place, reach(old, new), ratio, lot)
    return SceneEdit(after, new, paraphrase(after, lot), mask)
