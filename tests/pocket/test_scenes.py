"""The world of scenes: its split, its renderer, and the verifier that reads pictures back."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pocket.render import STILL, render
from pocket.scenes import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    Item,
    Scene,
    held_out,
    held_out_scenes,
    sample_scene,
    training_scene,
)
from pocket.verify import UNKNOWN, accuracy, read, score

Picture = NDArray[np.uint8]

HELD_OUT = [
    "a large pink cross left on white",
    "a large orange triangle right and a small red triangle bottom on black",
    "a small purple star left and a small red cross bottom and a large blue ring center on white",
    "a large blue ring left on grey",
    "a large yellow cross top and a small orange cross center on sand",
    "a large pink cross left and a large cyan triangle top and a small red circle bottom on sand",
]


def some_scenes(count: int = 100) -> list[tuple[Scene, Picture]]:
    rng = random.Random(7)
    scenes = [sample_scene(rng) for _ in range(count)]
    return [(scene, render(scene, rng)) for scene in scenes]


def noisy(image: Picture) -> Picture:
    noise = np.random.default_rng(3).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def blurred(image: Picture) -> Picture:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.2)))


@pytest.mark.parametrize("spoil", [lambda image: image, noisy, blurred])
def test_the_verifier_reads_at_least_99_per_cent_of_attributes_right(
    spoil: Callable[[Picture], Picture],
) -> None:
    scores = [score(scene, read(spoil(image))) for scene, image in some_scenes()]
    shares = accuracy(scores)
    assert set(shares) == {"all", "background", "count", "place", "shape", "colour", "size"}
    assert min(shares.values()) >= 0.99


def test_every_shape_colour_size_and_background_is_told_apart() -> None:
    for background in BACKGROUNDS:
        for n, colour in enumerate(COLOURS):
            for m, shape in enumerate(SHAPES):
                item = Item(SIZES[(n + m) % 2], colour, shape, PLACES[(n + m) % len(PLACES)])
                seen = read(render(Scene((item,), background), random.Random(0), STILL))
                assert (seen.items, seen.background) == ((item,), background)


def test_an_empty_picture_shows_its_background_and_nothing_else() -> None:
    seen = read(render(Scene((), "navy"), random.Random(0)))
    assert (seen.items, seen.background) == ((), "navy")


def test_a_blob_that_is_no_shape_is_read_as_unknown() -> None:
    image = np.full((128, 128, 3), 247, np.uint8)
    image[62:66, 44:84] = COLOURS["red"]
    item = read(image).at("center")
    assert item is not None
    assert item.shape == UNKNOWN


def test_a_missing_shape_loses_its_attributes_and_a_spurious_one_the_count() -> None:
    red = Item("large", "red", "circle", "left")
    blue = Item("small", "blue", "square", "right")
    seen = read(render(Scene((red,), "white"), random.Random(0)))
    missing = score(Scene((red, blue), "white"), seen)
    assert missing["shape"] == missing["colour"] == missing["size"] == [True, False]
    assert missing["count"] == [False]
    spurious = score(Scene((), "white"), seen)
    assert spurious == {"background": [True], "count": [False]}


@pytest.mark.parametrize("shape", ["circle", "square", "cross", "ring"])
def test_large_shapes_without_tips_at_neighbouring_places_never_touch(shape: str) -> None:
    items = tuple(Item("large", "red", shape, place) for place in ("left", "center", "right"))
    for seed in range(20):
        image = render(Scene(items, "white"), random.Random(seed))
        ink = (np.abs(image.astype(int) - image[0, 0]).sum(-1) > 60).any(0)
        assert np.count_nonzero(np.diff(ink.astype(int)) == 1) == 3


def test_pictures_of_one_scene_differ_by_seed_and_agree_on_the_same_seed() -> None:
    scene = sample_scene(random.Random(1))
    first, again, other = (render(scene, random.Random(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_tenth_of_scenes_is_held_out_and_the_split_never_moves() -> None:
    rng = random.Random(2)
    share = sum(held_out(sample_scene(rng)) for _ in range(5000)) / 5000
    assert 0.08 < share < 0.12
    scenes = held_out_scenes(6)
    assert [str(scene) for scene in scenes] == HELD_OUT
    assert all(held_out(scene) for scene in scenes)


def test_training_scenes_are_never_held_out() -> None:
    rng = random.Random(4)
    assert not any(held_out(training_scene(rng)) for _ in range(2000))
