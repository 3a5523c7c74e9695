"""The caption grammar says a scene in many ways, and every full one can be read back."""

import random

import pytest

from pocket.captions import paraphrase, parse, terse, vocabulary
from pocket.scenes import Item, Scene, sample_scene

DEMO = "a large red circle left and a small blue square right on white"
DEMO_SCENE = Scene(
    (Item("large", "red", "circle", "left"), Item("small", "blue", "square", "right")), "white"
)


def test_the_demo_prompt_is_the_canonical_caption_of_its_scene() -> None:
    assert str(DEMO_SCENE) == DEMO
    assert parse(DEMO) == DEMO_SCENE


@pytest.mark.parametrize(
    "caption",
    [
        "a big red circle on the left and a little blue box on the right on a white background",
        "white background, right: tiny blue square, left: huge red disc",
        "On white, at the right a small blue square and to the left a large red dot",
    ],
)
def test_paraphrases_of_the_demo_prompt_mean_the_same_scene(caption: str) -> None:
    assert parse(caption) == DEMO_SCENE


def test_every_paraphrase_parses_back_to_its_scene() -> None:
    rng = random.Random(0)
    for _ in range(1500):
        scene = sample_scene(rng)
        assert parse(paraphrase(scene, rng)) == scene


def test_a_scene_has_many_paraphrases() -> None:
    rng = random.Random(0)
    assert len({paraphrase(DEMO_SCENE, rng) for _ in range(500)}) > 300


def test_a_terse_caption_says_what_it_leaves_open() -> None:
    rng = random.Random(0)
    for _ in range(300):
        text, left_open = terse(DEMO_SCENE, rng)
        assert ("white" in text) == ("background" not in left_open)
        assert "circle" in text or "disc" in text or "dot" in text


def test_parsing_an_incomplete_caption_says_what_it_names() -> None:
    with pytest.raises(ValueError, match=r"'a red circle' names .*'size': 0.* backgrounds \[\]"):
        parse("a red circle")


def test_the_vocabulary_covers_every_word_of_the_grammar() -> None:
    rng, words = random.Random(0), set(vocabulary())
    for _ in range(500):
        said = paraphrase(sample_scene(rng), rng)
        assert set(said.replace(",", " ,").replace(":", " :").split()) <= words
