"""The edits of `benchmarks.edit_fidelity`, and what it makes of what it sees."""

import io
import json
from random import Random

import numpy as np
import pytest
from PIL import Image

from benchmarks.edit_fidelity.__main__ import FIRST_AT_MOST, FULL, Series, plan
from benchmarks.edit_fidelity.figures import Drawn, right, rows, sheet, summary
from benchmarks.harness.edited_scenes import (
    Picture,
    mask_at,
    outside_difference,
    reach,
    token_share,
)
from pocket.captions import parse
from pocket.render import render
from pocket.scenes import SIDE, Item, Scene, held_out
from shared.media.masks import read_mask
from shared.media.reader import read_image
from shared.models.contracts.network import FULL_FROM

TOKEN = 16
SMALL = Item("small", "red", "star", "left")
LARGE = Item("large", "blue", "star", "left")


@pytest.fixture(scope="module")
def planned() -> list[Series]:
    return plan(FULL, TOKEN)


def painted(scene: Scene, seed: int = 0) -> Picture:
    return render(scene, Random(seed))


def drawn(series: Series, number: int, cached: bool = True, shows: Scene | None = None) -> Drawn:
    """Edits as a painter draws them; the cached one shows another scene if `shows` is given."""
    edit = series.edits[number]

    def merged(scene: Scene) -> Picture:
        picture = series.original.picture.copy()
        picture[edit.mask] = painted(scene)[edit.mask]
        return picture

    exact = merged(edit.scene)
    return Drawn(series.original, edit, exact, merged(shows or edit.scene), exact, cached)


def test_all_edits_but_the_first_ones_can_be_cached(planned: list[Series]) -> None:
    assert len(planned) == FULL.templates
    for series in planned:
        first, *later = series.edits
        assert token_share([first.mask], TOKEN) <= FIRST_AT_MOST
        assert len(later) == FULL.edits
        for edit in later:
            assert token_share([first.mask, edit.mask], TOKEN) <= FULL_FROM
            assert edit.scene != first.scene


def test_an_edit_says_all_of_a_held_out_scene_in_which_one_shape_is_another(
    planned: list[Series],
) -> None:
    for series in planned:
        before = series.original.scene
        for edit in series.edits:
            assert parse(edit.prompt) == edit.scene
            assert held_out(before)
            assert held_out(edit.scene)
            [old] = [item for item in before.items if item not in edit.scene.items]
            assert edit.item in edit.scene.items
            assert edit.item.place == old.place
            assert edit.item.shape != old.shape
            assert edit.item.colour != old.colour


def test_masks_cover_the_old_shape_and_the_new_one(planned: list[Series]) -> None:
    for series in planned:
        scene = series.original.scene
        for edit in series.edits:
            [old] = [item for item in scene.items if item not in edit.scene.items]
            for item in (old, edit.item):
                kept = painted(Scene((item,), scene.background), seed=1)[~edit.mask]
                assert (kept == kept[0]).all()  # the background alone


def test_the_edits_are_the_same_in_every_run_and_differ_from_each_other(
    planned: list[Series],
) -> None:
    again = plan(FULL, TOKEN)
    ours, theirs = ([e for series in each for e in series.edits] for each in (planned, again))
    assert [e.prompt for e in ours] == [e.prompt for e in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
    seeds = {series.request(n, "exact").seed for series in planned for n in range(6)}
    assert len(seeds) == len(ours)


def test_masks_are_as_large_as_they_should_be_but_no_smaller_than_their_shape() -> None:
    lot = Random(0)
    for ratio in (0.1, 0.35, 0.8):
        assert mask_at("center", reach(SMALL), ratio, lot).mean() == pytest.approx(ratio, abs=0.03)
    least = mask_at("center", reach(LARGE), 0.002, lot)
    assert 0.1 < least.mean() < 0.2
    assert reach(SMALL) < reach(LARGE) == reach(SMALL, LARGE)


def test_a_mask_is_transparent_where_the_picture_is_drawn_anew(planned: list[Series]) -> None:
    request = planned[0].request(1, "cached")
    assert request.mask is not None
    assert request.image is not None
    said = np.asarray(read_mask(read_image("mask", request.mask))) > 0
    np.testing.assert_array_equal(said, planned[0].edits[1].mask)
    with Image.open(io.BytesIO(request.image)) as image:
        np.testing.assert_array_equal(np.asarray(image), planned[0].original.picture)


def test_tokens_count_that_any_mask_touches() -> None:
    one, other = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    one[0, 15], other[15:17, 0] = True, True
    assert token_share([one], TOKEN) == 1 / 64
    assert token_share([one, other], TOKEN) == 2 / 64


def test_a_difference_counts_outside_the_mask_only() -> None:
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    other, mask = black.copy(), np.zeros((SIDE, SIDE), bool)
    other[:10], mask[:10] = 200, True
    assert outside_difference(black, other, mask) == 0
    other[10, 0, 2] = 3
    assert outside_difference(black, other, mask) == 3


def test_only_the_edited_shape_is_judged(planned: list[Series]) -> None:
    edit = planned[0].edits[1]
    assert right(edit, painted(edit.scene)) == [True] * 4
    assert right(edit, painted(Scene((edit.item,), "black"))) == [True] * 4
    assert right(edit, painted(Scene((), "black"))) == [False] * 4


def test_figures_are_of_cached_edits_and_the_noise_is_of_the_others(planned: list[Series]) -> None:
    first = planned[0]
    wrong = first.original.scene
    found = summary(
        [
            drawn(first, 0, cached=False, shows=wrong),
            drawn(first, 1),
            drawn(planned[1], 1, shows=planned[1].original.scene),
        ]
    )
    assert (found["edits"], found["edits_in_full"]) == (2, 1)
    assert 0.5 < found["ssim"] < 1.0
    assert found["ssim"] < found["ssim_picture"] < 1.0
    assert found["ssim_other_seed"] == 1.0
    assert found["ssim_noise"] < 0.9
    assert found["outside_max_abs_diff"] == 0
    assert found["accuracy"]["exact"] == 1.0
    assert found["lost"] >= 2  # the shape and the colour
    assert found["gained"] == 0
    assert found["accuracy_drop"] == round(found["lost"] / 8, 4)
    json.dumps(found)
    table = rows(found)
    assert max(len(row) for row in table) == 4


def test_the_contact_sheet_has_four_pictures_for_each_edit(planned: list[Series]) -> None:
    shown = [drawn(series, 1) for series in planned[:10]]
    assert sheet(shown).size == (8 * (SIDE + 14) + 14, 5 * (SIDE + 62) + 14)
