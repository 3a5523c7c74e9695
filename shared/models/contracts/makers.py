"""How the makers of distilled models want them drawn: in few steps, and mostly without guidance.

A model is known to be one by a word of its name, by its scheduler's class, or by the spacing of its
scheduler's times; each family has a table of its own. What an operator says goes before all of it
(`shared/models/settings.py`).
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class Wanted(NamedTuple):
    """Steps, and guidance; None: as other models of the family."""

    steps: int
    guidance: float | None


_ANYWHERE: Final = ("turbo", "lightning", "schnell")
"""Words that mean nothing else within a longer one."""
_STEPS: Final = re.compile(r"(\d+)[ _-]?steps?(?![a-z])")


def word_of(text: str, table: Mapping[str, Wanted]) -> str | None:
    """The first word of the `table` that is in a model's names; None: none of them."""
    return next((word for word in table if _says(text, word)), None)


def in_steps(text: str, found: Wanted | None) -> Wanted | None:
    """`found`, in as many steps as the model's names say, if they do."""
    matched = _STEPS.search(text)
    return found and found._replace(steps=int(matched[1])) if matched and int(matched[1]) else found


def _says(text: str, word: str) -> bool:
    edges = ("", "") if word in _ANYWHERE else ("(?<![a-z])", "(?![a-z])")
    return re.search(word.join(edges), text) is not None
