"""The command that draws pictures and masks for newcomers to edit."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocket.captions import parse
from pocket.pictures import main
from pocket.scenes import PLACES, Item
from pocket.verify import read

CAPTION = "a large red circle left and a small blue square right on white"


def pictures(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["pictures", *map(str, arguments)])
    main()


def test_a_caption_becomes_a_picture_of_its_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(monkeypatch, CAPTION, "--out", tmp_path / "photo.png")
    seen = read(np.asarray(Image.open(tmp_path / "photo.png")))
    assert (set(seen.items), seen.background) == (set(parse(CAPTION).items), "white")


@pytest.mark.parametrize("place", PLACES)
def test_a_mask_shows_all_of_the_shape_at_its_place_and_of_no_other(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = PLACES[PLACES.index(place) - 1]
    caption = f"a large red star {place} and a large blue square {other} on white"
    files = {name: tmp_path / f"{name}.png" for name in ("photo", "mask")}
    pictures(monkeypatch, caption, "--out", files["photo"], "--mask", files["mask"], "--at", place)
    shown = np.asarray(Image.open(files["mask"]))[..., 3] == 0
    left = np.array(Image.open(files["photo"]))
    left[shown] = left[0, 0]
    assert read(left).items == (Item("large", "blue", "square", other),)


@pytest.mark.parametrize(
    ("caption", "file", "said"),
    [("a red dog", "a.png", "a red dog"), (CAPTION, "no/a.png", "a.png"), (CAPTION, "a.b", ".b")],
)
def test_what_cannot_be_drawn_is_bad_usage(
    caption: str,
    file: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        pictures(monkeypatch, caption, "--out", tmp_path / file)
    assert said in capsys.readouterr().err
