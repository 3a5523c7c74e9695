"""Which options of a component's config are honoured: a written list for each class, and the check.

An option that is `read` may have any value: diffusers builds the component by it, and nothing here
depends on which it is. One that is `fixed` may have the values that are listed. Options in neither
list are not the class's own, and diffusers ignores them too.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Options:
    """Of class `kind`. The first value of a `fixed` option is the class's own default, unless it is
    `needed`: then a config has to have it. Of an option that is a list each part is looked at."""

    kind: str
    read: frozenset[str]
    fixed: Mapping[str, tuple[Any, ...]]
    needed: frozenset[str] = frozenset()

    def check(self, folder: str, config: Mapping[str, Any]) -> None:
        """Raises `Misconfigured` naming the first option of `folder`'s config that is not
        honoured."""
        kind = config.get("_class_name", self.kind)
        if kind != self.kind:
            raise Misconfigured(f"{folder}/ is a {kind}; served is {self.kind}")
        for name, allowed in self.fixed.items():
            if name not in config and name not in self.needed:
                continue
            value = config.get(name)
            parts = value if isinstance(value, list | tuple) else [value]
            if any(part not in allowed for part in parts):
                shown = " or ".join(json.dumps(one) for one in allowed)
                raise Misconfigured(
                    f"{folder}/config.json: {name} is {json.dumps(value)}; honoured is {shown}"
                )


CLIP_TOKENIZER: Final = (
    frozenset({"tokenizer.json"}),
    frozenset({"vocab.json", "merges.txt"}),
)
T5_TOKENIZER: Final = (frozenset({"tokenizer.json"}), frozenset({"spiece.model"}))
"""Files without which a tokenizer knows no words, and says nothing: one of these sets."""


def whole(folder: str, config: Mapping[str, Any], name: str, default: Any = None) -> int:
    """Option `name` as a whole number above 0. Raises `Misconfigured`."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Misconfigured(
            f"{folder}/config.json: {name} is {json.dumps(value)}; "
            "honoured is a whole number above 0"
        )
    return value


def number(folder: str, config: Mapping[str, Any], name: str, default: Any = None) -> float:
    """Option `name` as a finite number. Raises `Misconfigured`."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        shown = json.dumps(value)
        raise Misconfigured(f"{folder}/config.json: {name} is {shown}; honoured is a number")
    return float(value)


def same(what: str, value: int, other: str, wanted: int | None) -> None:
    """Raises `Misconfigured` if two components that meet differ; None: the other does not say."""
    if wanted is not None and value != wanted:
        raise Misconfigured(f"{what} is {value}, but {other} {wanted}: they do not fit together")
