"""What was asked for and cannot be used: it is listed with its reason, and stops nothing else."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

UNUSABLE: Final = "unusable"
"""Its name among the statistics of a process, as a list."""
Kind = Literal["model", "controlnet", "lora"]


class Unusable(msgspec.Struct, frozen=True, kw_only=True):
    """A model, a ControlNet or a LoRA, and why nobody draws with it."""

    name: str
    source: str
    """Directory or hub id, as it was given."""
    kind: Kind
    reason: str


def unusable_in(statistics: Mapping[str, object]) -> tuple[Unusable, ...]:
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
