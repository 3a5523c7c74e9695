"""What users may call a served model beside its name: the hub id or path that it was given as, and
the aliases that the operator sets."""

import os
import re
from collections.abc import Mapping
from typing import Final

from shared.errors import Misconfigured

VARIABLE: Final = "DARKROOM_MODEL_ALIASES"

_SNAPSHOT: Final = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[^/]+/?$")
"""Where the hub's cache keeps a model, at the end of a path."""


def parse_aliases(text: str) -> dict[str, str]:
    """`ALIAS=MODEL,...` as a mapping. Raises `Misconfigured`."""
    found: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        alias, _, model = (side.strip() for side in part.partition("="))
        if not alias or not model or not alias.isprintable() or alias in found:
            raise Misconfigured(
                f"{VARIABLE}: {part!r} is not allowed; allowed: ALIAS=MODEL, separated by commas, "
                "each alias once"
            )
        found[alias] = model
    return found


def named_by_source(sources: Mapping[str, str], wanted: str) -> str | None:
    """Which model is meant by its source as `wanted`: `sources` are the names of models by where
    they are loaded from. Relative paths are read from where this process runs."""
    if wanted in sources:
        return sources[wanted]
    for source, name in sources.items():
        cached = _SNAPSHOT.search(source)
        if cached is not None and wanted == "/".join(cached.groups()):
            return name
    try:
        return sources.get(os.path.realpath(wanted))
    except (OSError, ValueError):  # no path can be so long, or hold a zero
        return None
