"""Loading what was asked for, of which some may be unusable: that stops nothing else."""

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from shared.bus.unusable import Kind, Unusable
from shared.errors import DarkroomError, Misconfigured
from shared.models.files.directory import loading

T = TypeVar("T")
log = logging.getLogger(__name__)


def load_each(
    sources: Mapping[str, str], kind: Kind, what: str, load: Callable[[str], T]
) -> tuple[dict[str, T], tuple[Unusable, ...]]:
    """What `load` makes of each of these names, and those that it fails for; `what` of a model it
    loads. Raises `Misconfigured` if it fails for all of them."""
    found: dict[str, T] = {}
    unusable: list[Unusable] = []
    for name, source in sources.items():
        try:
            with loading(f"{what} of {name}" if kind == "model" else f"{what} {name}"):
                found[name] = load(name)
        except DarkroomError as error:
            log.warning("%s is not served from here: %s", name, error)
            unusable.append(Unusable(name=name, source=source, kind=kind, reason=error.message))
    if not found:
        raise Misconfigured("; ".join(one.reason for one in unusable))
    return found, tuple(unusable)
