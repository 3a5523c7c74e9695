"""What was asked for and cannot be used: it is listed with its reason, and stops nothing else."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeVar

import msgspec

from shared.errors import DarkroomError, Misconfigured
from shared.model_files import loading

UNUSABLE: Final = "unusable"
"""Its name among the statistics of a process, as a list."""
Kind = Literal["model", "controlnet", "lora"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class Unusable(msgspec.Struct, frozen=True, kw_only=True):
    """A model, a ControlNet or a LoRA, and why nobody draws with it."""

    name: str
    source: str
    """Directory or hub id, as it was given."""
    kind: Kind
    reason: str


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


def told(statistics: Mapping[str, object]) -> tuple[Unusable, ...]:
    """What a process says of itself; nothing if it is too old to."""
    try:
        return msgspec.convert(statistics.get(UNUSABLE, ()), tuple[Unusable, ...])
    except msgspec.ValidationError:
        return ()


def distinct(each: Iterable[Unusable]) -> list[Unusable]:
    """Each once, however many say so."""
    found: dict[tuple[str, str], Unusable] = {}
    for one in each:
        found.setdefault((one.kind, one.name), one)
    return list(found.values())
