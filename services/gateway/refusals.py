"""What is wrong with a request, by the names that its fields have in HTTP."""

from collections.abc import Iterable

from shared.errors import InvalidRequest


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
