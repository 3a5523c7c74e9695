"""Bodies of requests as typed fields, purely: what is no field, or no value of one, is refused."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from services.gateway.openai.aliases import resolved
from services.gateway.openai.data_urls import IN_JSON
from services.gateway.openai.edit_images import IMAGE_FIELDS, files_of
from services.gateway.openai.fields import (
    ALIASES,
    ALLOWED,
    ALLOWED_IN_EDITS,
    FILE_FIELDS,
    EditsRequest,
    ImagesRequest,
)
from services.gateway.openai.ignored import IGNORED
from services.gateway.openai.refusals import InvalidField, Shown, UnknownField, in_json
from services.gateway.openai.undone import UNDONE
from services.gateway.openai.values import LISTS, said
from shared.errors import InvalidRequest

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""Some clients begin a body in UTF-8 with it."""

Body = bytes | bytearray
R = TypeVar("R", bound=ImagesRequest)


def parse(body: Body) -> ImagesRequest:
    """Raises `InvalidRequest` naming the field of `body` that is wrong, and what is allowed."""
    values = _object(body, ImagesRequest)
    return _converted(values, ImagesRequest, lambda name: in_json(values[name]))


def parse_edit(texts: Mapping[str, str]) -> EditsRequest:
    """The text fields of an edit. Raises `InvalidRequest` as `parse` does."""
    return _converted(texts, EditsRequest, lambda name: Shown(repr(texts[name])))


def parse_json_edit(body: Body) -> tuple[EditsRequest, dict[str, list[bytes]]]:
    """An edit whose images are text, and these by the names of a form's files. Raises
    `InvalidRequest` as `parse` does."""
    values = _object(body, EditsRequest)
    images = {name: values.pop(name) for name in IMAGE_FIELDS if name in values}
    wanted = _converted(values, EditsRequest, lambda name: in_json(values[name]))
    return wanted, files_of(images)


def _object(body: Body, struct: type[ImagesRequest]) -> dict[str, Any]:
    """Raises `InvalidRequest` for what is no JSON object, or one with two values for a name."""
    if body.startswith(BYTE_ORDER_MARK):
        body = body[len(BYTE_ORDER_MARK) :]
    try:
        values = _values(body, _allowed(struct))
        with suppress(RecursionError):
            _ONCE.decode(IN_JSON.sub(b'""', body).decode())
    except msgspec.ValidationError as error:
        raise InvalidRequest("body", Shown(str(error)), "one JSON object") from error
    except RecursionError as error:
        raise _too_deep(body, struct) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest("body", str(error), "one JSON object in UTF-8") from error
    return values


def _values(body: Body, allowed: Mapping[str, str]) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        # Field by field, so that an error can name the one that cannot be read.
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: _value(name, bytes(raw), allowed) for name, raw in found.items()}


def _too_deep(body: Body, struct: type[ImagesRequest]) -> InvalidRequest:
    """About the first field that has no such value, if it is one of those with a type."""
    try:
        msgspec.json.decode(body, type=struct)
    except msgspec.ValidationError as error:
        return _wrong_field(str(error), _allowed(struct), lambda _: Shown("the value"))
    except (msgspec.DecodeError, RecursionError):
        pass
    return InvalidRequest("body", "so many brackets in brackets", "one JSON object")


def _allowed(struct: type[ImagesRequest]) -> dict[str, str]:
    return ALLOWED if struct is ImagesRequest else ALLOWED_IN_EDITS


def _value(name: str, text: bytes, allowed: Mapping[str, str]) -> Any:
    """Of one field. Raises `InvalidField` for a number that is too large, or too many brackets;
    that the field is unknown, if it is, would be told first."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if name not in allowed:
            return None
        deep = isinstance(error, RecursionError)
        sent = Shown("the value") if deep else Shown(text.decode(errors="replace"))
        raise InvalidField(name, sent, allowed[name]) from error


def _no_name_twice(pairs: Sequence[tuple[str, object]]) -> None:
    """Parsers differ in which value they take."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise InvalidField(name, Shown("this field, twice,"), "this field once")


_ONCE: Final = json.JSONDecoder(
    object_pairs_hook=_no_name_twice, parse_int=str, parse_float=str, strict=False
)


def _converted(sent: Mapping[str, Any], struct: type[R], shown: Callable[[str], Shown]) -> R:
    """`shown`: how an error shows the value that was sent for a field."""
    allowed = _allowed(struct)
    values = said(sent, struct)
    for name in LISTS & values.keys():
        if isinstance(values[name], str):
            raise InvalidRequest(name, values[name], f"{allowed[name]}; or that as a JSON text")
    try:
        return resolved(msgspec.convert(values, struct, strict=False))
    except msgspec.ValidationError as error:
        beside = partial(_shown, sent, values, shown)
        raise _wrong_field(str(error), allowed, beside) from error


def _shown(
    sent: Mapping[str, Any],
    values: Mapping[str, Any],
    shown: Callable[[str], Shown],
    name: str,
) -> Shown:
    """Of a field that was sent, or that extra_body holds."""
    return shown(name) if name in sent else in_json(values[name])


def _wrong_field(
    reason: str, allowed: Mapping[str, str], sent: Callable[[str], Shown]
) -> InvalidRequest:
    """Which field msgspec's `reason` is about: it names it in the text or as a path. `sent`: what
    was given for a field."""
    path = re.search(r"at `\$\.(\w+)", reason)
    if path is not None:
        name = path.group(1)
        return InvalidField(name, sent(name), allowed[name])
    if "unknown field" in reason:
        files = FILE_FIELDS if allowed is ALLOWED_IN_EDITS else {}
        others = {*ALIASES, *IGNORED, *UNDONE} - files.keys()
        own = (name for name in allowed if name not in others)
        return UnknownField(reason.split("`")[1], own)
    if "missing required field" in reason:
        name = reason.split("`")[1]
        return InvalidField(name, Shown("a missing value"), allowed[name])
    return InvalidRequest("body", reason, "one JSON object")
