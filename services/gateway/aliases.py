"""What image clients call fields of ours, brought under one name."""

from typing import TypeVar

import msgspec

from services.gateway.refusals import InvalidField
from services.gateway.request import ALIASES, ImagesRequest

R = TypeVar("R", bound=ImagesRequest)


def resolved(wanted: R) -> R:
    """`wanted`, with what it says under other names said under ours as well. Raises
    `InvalidRequest` if two names of one field say different things."""
    said: dict[str, object] = {}
    for alias, name in ALIASES.items():
        value = getattr(wanted, alias, None)
        if value is None:
            continue
        before = said.get(name, getattr(wanted, name))
        if before not in (None, value):
            raise InvalidField(alias, value, f"{before!r}, as {name} says, or one of the two")
        said[name] = value
    return msgspec.structs.replace(wanted, **said)


def name_as_sent(wanted: ImagesRequest, name: str) -> str:
    """What the request called the field `name`."""
    names = (alias for alias, field in ALIASES.items() if field == name)
    return next((alias for alias in names if getattr(wanted, alias, None) is not None), name)
