"""What `benchmarks.fidelity` draws, and makes of what it sees."""

import json
import os
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from benchmarks.fidelity.__main__ import compared, joins, rows, similarity, summary
from benchmarks.fidelity.pictures import Painter
from benchmarks.fidelity.plot import late_plot
from pocket.captions import parse
from services.fleet.plan.processes import default_loras
from shared.models.catalogue import Catalogue
from shared.shipped import DEFAULT_MODEL

CAPTION = "a large red circle left on white"
SVG = "{http://www.w3.org/2000/svg}"


def figures(near: str, ssim: float, exact: float, approximate: float) -> dict[str, Any]:
    return {
        "ssim": ssim,
        "ssim_without": 0.5,
        "accuracy": {"exact": exact, near: approximate, "without": 1.0},
        "number": {"exact": 0.9, near: 0.8, "without": 0.1},
    }


def loras() -> Mapping[str, dict[str, Any]]:
    by_step = {"0": 1.0, "2": 0.98, "4": 0.9, "25": 0.5}
    late = {"late_steps": 2, "ssim_by_late_steps": by_step}
    return {
        "neon": figures("late", 0.98, 0.5, 0.6) | late,
        "outline": figures("late", 0.96, 0.7, 0.5) | late,
    }


def test_figures_are_means_over_add_ons_and_a_gain_is_a_negative_drop() -> None:
    controls = {"edges": figures("lag", 0.9, 0.9, 0.95)}
    found = summary(loras(), controls)
    assert (found["bal_ssim"], found["bal_accuracy_drop"]) == (0.97, 0.05)
    assert (found["lag_ssim"], found["lag_accuracy_drop"]) == (0.9, -0.05)
    assert max(len(row) for row in rows(found)) == len(rows(found)[0])
    json.dumps(found)


def test_the_plot_has_the_first_steps_one_by_one_and_never() -> None:
    assert joins(25) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17, 21, 25]
    assert joins(4) == [0, 1, 2, 3, 4]


def test_the_plot_is_a_picture_file_with_a_line_a_name_and_a_ring_for_each_lora() -> None:
    drawn = ElementTree.fromstring(late_plot(loras(), steps=25))
    assert drawn.tag == f"{SVG}svg"
    assert len(drawn.findall(f"{SVG}polyline")) == 2
    assert len(drawn.findall(f"{SVG}circle")) == 2
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert {"neon", "outline", "25"} <= set(texts)


def test_pictures_are_compared_with_the_exact_ones_pair_by_pair() -> None:
    scene = parse(CAPTION)
    black, white = (np.full((128, 128, 3), value, np.uint8) for value in (0, 255))
    drawn = {"exact": [black, white], "late": [black, white], "without": [white, white]}
    found = compared(drawn, [scene, scene], lambda scenes, images: float(len(images)))
    assert found["ssim"] == 1.0
    assert found["ssim_without"] == pytest.approx(0.5, abs=0.01)
    assert found["number"] == {"exact": 2.0, "late": 2.0, "without": 2.0}
    assert found["accuracy"]["exact"] == found["accuracy"]["late"]


def test_a_lora_that_joins_later_is_less_like_one_that_was_there_and_never_is_without() -> None:
    whole = Catalogue.load([DEFAULT_MODEL], default_loras(os.environ))
    card = msgspec.structs.replace(whole.default, default_steps=4)
    painter = Painter(msgspec.structs.replace(whole, cards={card.name: card}))
    uses = (painter.use("outline"),)
    plain = painter.draw((), [CAPTION])
    exact, late, never = (painter.draw(uses, [CAPTION], k) for k in (0, 2, 4))
    np.testing.assert_array_equal(never, plain)
    assert similarity(exact, plain) < similarity(exact, late) < 1.0
