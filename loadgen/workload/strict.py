"""What msgspec finds wrong with a text, as an error of ours: which field, its value, what is
allowed."""

import re
from collections.abc import Mapping

import msgspec

from shared.errors import InvalidRequest


class Shown(str):
    """Text that an error shows as it is, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def refuse(
    where: str, data: object, error: Exception, allowed: Mapping[str, str] | None = None
) -> InvalidRequest:
    """The error for `where` (a file, a line) whose `data` (JSON text, or plain objects) msgspec
    refused with `error`. `allowed`: per field, in words; msgspec's own words otherwise."""
    reason, allowed = str(error), allowed or {}
    if not isinstance(error, msgspec.ValidationError):
        return InvalidRequest(where, Shown(reason), "one JSON object")
    if unknown := re.search(r"unknown field `([^`]+)`", reason):
        name = _joined(where, f"{_path(reason)}{unknown[1]}")
        return InvalidRequest(name, Shown("this field"), "only " + _known(allowed))
    if missing := re.search(r"missing required field `([^`]+)`", reason):
        name = f"{_path(reason)}{missing[1]}"
        said = allowed.get(name, "a value")
        return InvalidRequest(_joined(where, name), Shown("a missing value"), said)
    path = _path(reason).rstrip(".")
    said = allowed.get(path.split("[")[0], reason.split(" - at ")[0])
    return InvalidRequest(_joined(where, path), _value(data, path), said)


def _path(reason: str) -> str:
    """`arrivals.rate.` of "… - at `$.arrivals.rate`", or nothing."""
    found = re.search(r"at `(?:key in )?\$\.?([^`]*)`", reason)
    return f"{found[1]}." if found and found[1] else ""


def _joined(where: str, name: str) -> str:
    return f"{where}, {name}" if name else where


def _known(allowed: Mapping[str, str]) -> str:
    return ", ".join(allowed) if allowed else "the documented fields"


def _value(data: object, path: str) -> object:
    """What `data` has at `path`, shown as JSON; the whole where it cannot be followed."""
    try:
        found: object = msgspec.json.decode(data) if isinstance(data, bytes) else data
        for name in re.findall(r"[^.\[\]]+", path):
            found = _inside(found, name)
        return Shown(msgspec.json.encode(found).decode())
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        return Shown("the value")


def _inside(value: object, name: str) -> object:
    if isinstance(value, list | tuple):
        return value[int(name)]
    if isinstance(value, dict):
        return value[name]
    raise LookupError(name)
