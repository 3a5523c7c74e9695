"""The benchmark of quality: its captions are fixed, held out, and name every attribute."""

import numpy as np

from benchmarks.quality import CAPTIONS, SHEET_COLUMNS, SHEET_ROWS, captions_for, contact_sheet
from pocket.captions import parse
from pocket.scenes import SIDE, held_out, held_out_scenes


def test_its_captions_are_held_out_and_name_the_whole_scene() -> None:
    scenes = held_out_scenes(CAPTIONS)
    captions = captions_for(scenes)
    assert captions == captions_for(scenes)
    assert len(set(scenes)) == CAPTIONS == 200
    assert [parse(caption) for caption in captions] == scenes
    assert all(held_out(scene) for scene in scenes)
    assert {len(scene.items) for scene in scenes} == {1, 2, 3}


def test_the_contact_sheet_holds_a_grid_of_pictures_with_room_for_captions() -> None:
    count = SHEET_ROWS * SHEET_COLUMNS
    sheet = contact_sheet([np.zeros((SIDE, SIDE, 3), np.uint8)] * count, ["a red star"] * count)
    assert sheet.width > SHEET_COLUMNS * SIDE
    assert sheet.height > SHEET_ROWS * SIDE
