"""Styles and hints are drawn where the plain picture has its shapes, and numbers tell them."""

import random

import numpy as np
import pytest

from pocket.hints import BLOCK, HINTS
from pocket.render import STILL, Layout, draw, lay_out, render
from pocket.scenes import Item, Scene, held_out_scenes, sample_scene
from pocket.styles import STYLES
from pocket.verify import read
from pocket.verify_style import STATISTICS, corners, measure

LOW_AND_HIGH = {"outline": (0.02, 0.9), "stripes": (2.0, 15.0), "neon": (5.0, 40.0)}


def layouts(count: int = 40) -> list[tuple[Scene, Layout]]:
    rng = random.Random(3)
    return [(scene, lay_out(scene, rng)) for scene in (sample_scene(rng) for _ in range(count))]


@pytest.mark.parametrize("style", ["outline", "stripes", "neon"])
def test_a_style_s_number_is_high_for_its_pictures_and_low_for_plain_ones(style: str) -> None:
    low, high = LOW_AND_HIGH[style]
    scenes = [scene for scene, _ in layouts()]
    assert measure(style, scenes, [draw(layout) for _, layout in layouts()]) < low
    assert measure(style, scenes, [STYLES[style](layout) for _, layout in layouts()]) > high


def test_pastel_pictures_are_less_than_half_as_saturated_as_plain_ones() -> None:
    scenes = [scene for scene, _ in layouts()]
    plain = measure("pastel", scenes, [draw(layout) for _, layout in layouts()])
    assert measure("pastel", scenes, [STYLES["pastel"](one) for _, one in layouts()]) < plain / 2


def test_neon_is_black_behind_and_pastel_is_pale_whatever_the_background() -> None:
    for _, layout in layouts(20):
        assert corners(STYLES["neon"](layout)).mean() < 20
        assert corners(STYLES["pastel"](layout)).mean() > 200


def test_a_number_that_no_shape_can_tell_is_refused_by_name() -> None:
    scene = Scene((Item("small", "red", "ring", "left"),), "white")
    with pytest.raises(ValueError, match="no shape of 1 scenes tells 'outline'"):
        measure("outline", [scene], [render(scene, random.Random(0))])


def test_every_style_has_a_number() -> None:
    assert STYLES.keys() == STATISTICS.keys()


def test_one_seed_puts_shapes_at_the_same_pixels_in_every_picture_of_a_scene() -> None:
    for scene in held_out_scenes(10):
        layout = lay_out(scene, random.Random(5))
        assert np.array_equal(draw(layout), render(scene, random.Random(5)))
        inside = np.min([shape.distance() for shape in layout.shapes], axis=0) < -1
        plain = draw(layout).astype(int)
        assert (np.abs(plain - plain[0, 0]).sum(-1) > 60)[inside].all()
        assert HINTS["shading"](layout)[inside].min() > 0.3


@pytest.mark.parametrize("name", list(HINTS))
def test_hints_are_pictures_of_zero_to_one_that_depend_on_the_layout_alone(name: str) -> None:
    for scene, layout in layouts(10):
        hint = HINTS[name](layout)
        assert hint.shape == (128, 128, 3)
        assert hint.dtype == np.float32
        assert 0 <= hint.min() < hint.max() <= 1, scene
        assert np.array_equal(hint, HINTS[name](layout))


def test_edges_are_thin_blocks_are_flat_and_shading_rises_inwards() -> None:
    scene = Scene((Item("large", "red", "circle", "center"),), "white")
    layout = lay_out(scene, random.Random(0), STILL)
    edges, blocks, shading = (HINTS[name](layout) for name in ("edges", "blocks", "shading"))
    assert 0.01 < edges.mean() < 0.03
    assert edges[64, 64].max() == 0
    assert (blocks[:BLOCK, :BLOCK] == blocks[0, 0]).all()
    assert blocks[64, 64, 0] > 2 * blocks[64, 64, 1]
    assert shading[64, 64, 0] > shading[64, 80, 0] > shading[64, 84, 0] == 0
    assert read(draw(layout)).items == scene.items
