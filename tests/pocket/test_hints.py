"""The command that draws hints for newcomers."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocket.captions import parse
from pocket.hints import HINTS, main
from pocket.render import lay_out

CAPTION = "a large red circle left and a small blue square right on white"


def hints(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["hints", *map(str, arguments)])
    main()


@pytest.mark.parametrize("kind", HINTS)
def test_a_caption_becomes_the_hint_of_its_scene(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints(monkeypatch, CAPTION, "--kind", kind, "--seed", 3, "--out", tmp_path / "hint.png")
    wanted = HINTS[kind](lay_out(parse(CAPTION), random.Random(3)))
    with Image.open(tmp_path / "hint.png") as image:
        assert np.abs(np.asarray(image) / 255 - wanted).max() <= 0.5 / 255 + 1e-6


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
        hints(monkeypatch, caption, "--out", tmp_path / file)
    assert said in capsys.readouterr().err
