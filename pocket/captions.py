"""The caption grammar: many ways to say one scene, and a parser that undoes them."""

import random
import re
from typing import Final

from pocket.scenes import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    Item,
    Scene,
    sample_scene,
    scene_of,
)

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "large": ("large", "big", "huge"),
    "small": ("small", "little", "tiny"),
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "grey": ("grey", "gray"),
    "center": ("center", "middle", "centre"),
}
_CANONICAL: Final = {word: name for name, words in SYNONYMS.items() for word in words}

# {p} is the bare place, {on} the same with its preposition, {item} the shape with its article.
_AT: Final = {
    "left": ("on the", "at the", "to the"),
    "right": ("on the", "at the", "to the"),
    "top": ("at the", "on the"),
    "bottom": ("at the", "on the"),
    "center": ("in the", "at the"),
}
_ITEM_FORMS: Final = (
    "a {thing} {place}",
    "a {thing} {at} {place}",
    "{thing} {place}",
    "{thing} {at} {place}",
    "{at} {place} a {thing}",
    "{place}: {thing}",
)
_VAGUE_FORMS: Final = ("a {thing}", "{thing}")
_JOINS: Final = (" and ", ", ", ", and ")
_WHOLE_FORMS: Final = (
    "{items} on {ground}",
    "{items} on a {ground} background",
    "{items}, {ground} background",
    "{items} on {ground} background",
    "on {ground}, {items}",
    "on a {ground} background, {items}",
    "{ground} background, {items}",
)


def paraphrase(scene: Scene, rng: random.Random) -> str:
    """One of the ways to say a scene in full: wording, word order and item order vary."""
    if rng.random() < 0.15:
        return str(scene)
    items = list(scene.items)
    rng.shuffle(items)
    form = rng.choice(_ITEM_FORMS)
    said = [_say_item(item, form, rng) for item in items]
    ground = _word(scene.background, rng)
    return rng.choice(_WHOLE_FORMS).format(items=_join(said, rng), ground=ground)


def terse(scene: Scene, rng: random.Random) -> tuple[str, frozenset[str]]:
    """A caption that leaves things open, and what it leaves open.

    The place is left out only for one shape in the middle, where a painter would put it.
    """
    sized, grounded = rng.random() < 0.5, rng.random() < 0.5
    bare = len(scene.items) == 1 and scene.items[0].place == "center"
    form = "a {thing}" if bare else rng.choice(_ITEM_FORMS)
    items = list(scene.items)
    rng.shuffle(items)
    said = _join([_say_item(item, form, rng, sized) for item in items], rng)
    ground = _word(scene.background, rng)
    text = rng.choice(_WHOLE_FORMS).format(items=said, ground=ground) if grounded else said
    opened = {"size": not sized, "background": not grounded}
    return text, frozenset(kind for kind, left_open in opened.items() if left_open)


def vague(scene: Scene, rng: random.Random) -> str:
    """A caption without places, and half of the time without sizes: a control has to tell them."""
    sized, grounded = rng.random() < 0.5, rng.random() < 0.5
    form = rng.choice(_VAGUE_FORMS)
    items = list(scene.items)
    rng.shuffle(items)
    said = _join([_say_item(item, form, rng, sized) for item in items], rng)
    ground = _word(scene.background, rng)
    return rng.choice(_WHOLE_FORMS).format(items=said, ground=ground) if grounded else said


def parse(caption: str) -> Scene:
    """The scene a full caption names. Raises ValueError, naming what is missing."""
    words = [_CANONICAL.get(word, word) for word in re.findall(r"[a-z]+", caption.lower())]
    kinds = {"size": SIZES, "colour": tuple(COLOURS), "shape": SHAPES, "place": PLACES}
    columns = {kind: [w for w in words if w in names] for kind, names in kinds.items()}
    grounds = [word for word in words if word in BACKGROUNDS]
    counts = {kind: len(column) for kind, column in columns.items()}
    if len(grounds) != 1 or len(set(counts.values())) != 1:
        raise ValueError(f"{caption!r} names {counts} and backgrounds {grounds}")
    rows = zip(*(columns[kind] for kind in ("size", "colour", "shape", "place")), strict=True)
    return scene_of([Item(*row) for row in rows], grounds[0])


def sample_captions(count: int, seed: int = 0) -> list[str]:
    """The same ones for a seed, of scenes drawn at random; any other model takes them as well."""
    rng = random.Random(seed)
    return [paraphrase(sample_scene(rng), rng) for _ in range(count)]


def vocabulary() -> list[str]:
    """Every word and mark of the grammar, sorted."""
    forms = " ".join((*_ITEM_FORMS, *_WHOLE_FORMS, *_JOINS, *sum(_AT.values(), ())))
    names = (*SHAPES, *SIZES, *PLACES, *COLOURS, *BACKGROUNDS, *_CANONICAL)
    plain = re.sub(r"{\w+}", " ", forms)
    return sorted({*re.findall(r"[a-z]+|[:,]", plain), *names, "an", "the", "with", "of"})


def _say_item(item: Item, form: str, rng: random.Random, sized: bool = True) -> str:
    size = f"{_word(item.size, rng)} " if sized else ""
    thing = f"{size}{_word(item.colour, rng)} {_word(item.shape, rng)}"
    said = form.format(thing=thing, place=_word(item.place, rng), at=rng.choice(_AT[item.place]))
    return said.replace("a orange", "an orange")


def _join(said: list[str], rng: random.Random) -> str:
    if len(said) == 1:
        return said[0]
    return (
        ", ".join(said[:-1]) + rng.choice(_JOINS) + said[-1]
        if rng.random() < 0.5
        else (rng.choice(_JOINS[:2]).join(said))
    )


def _word(name: str, rng: random.Random) -> str:
    """A synonym; the plain word half of the time."""
    return name if rng.random() < 0.5 else rng.choice(SYNONYMS.get(name, (name,)))
