"""What is wrong with a request, by the names that its fields have in HTTP."""

from collections.abc import Iterable
from typing import Final

import msgspec

from shared.errors import InvalidRequest

MOST_SHOWN: Final = 60
"""Characters of a value that may be anything that are shown."""


class InvalidField(InvalidRequest):
    """As `InvalidRequest`, of a field that HTTP calls so; a job may call another one so."""


class UnknownField(InvalidField):
    """The request has a field of a name that HTTP does not know, though a job may; it knows
    `known`."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name, Shown("this field"), "only " + ", ".join(known))


class Shown(str):
    """Text that an error shows as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def in_json(value: object) -> Shown:
    """The beginning of a JSON value, whatever it is."""
    try:
        text = msgspec.json.encode(value).decode()
    except RecursionError:  # it was read with fewer frames below
        return Shown("this value")
    return Shown(text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…")
