"""What fields say, however a client writes their values: one rule for JSON and for forms."""

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from services.gateway.openai.refusals import InvalidField, in_json

Kind = Literal["number", "truth", "choice", "list", "text", "any"]

AS_WRITTEN: Final = frozenset({"prompt", "negative_prompt", "negative", "user"})
"""Fields in which spaces count, and that may be empty."""
LISTS: Final = frozenset({"loras", "controls"})
"""Fields that a form has as JSON texts."""
_NOTHING: Final = frozenset({"null", "none", "undefined"})
"""What programs write for a value that they do not have, where text cannot be meant."""
_TRUTHS: Final = {"true": True, "false": False}
_CHOICES: Final = {
    "output_format": {"jpg": "jpeg", "image/jpg": "jpeg"}
    | {f"image/{kind}": kind for kind in ("png", "jpeg", "webp")},
    "response_format": {"base64": "b64_json", "b64": "b64_json"},
}
"""Other names of a field's choices."""
EXTRA: Final = "extra_body"
"""OpenAI's clients send its fields beside the others; some send it as it is."""


def said(sent: Mapping[str, object], struct: type[msgspec.Struct]) -> dict[str, object]:
    """The fields of `sent` that say something, as `struct` has them: numbers and truths from texts,
    lists from JSON texts, choices in any case. What cannot be read so is left as it is. Raises
    `InvalidField` if `extra_body` says something else than the fields beside it."""
    beside = {name: value for name, value in sent.items() if name != EXTRA}
    found, extra = _all_read(beside, struct), _all_read(_extra(sent), struct)
    for name in extra.keys() & found.keys():
        if extra[name] != found[name]:
            allowed = f"what extra_body says, {in_json(extra[name])}, or one of the two"
            raise InvalidField(name, in_json(found[name]), allowed)
    return found | extra


def _extra(sent: Mapping[str, object]) -> dict[str, object]:
    extra = sent.get(EXTRA)
    if isinstance(extra, str):
        extra = _from_json(extra) if extra.strip() else None
    if extra is None:
        return {}
    if not isinstance(extra, dict) or EXTRA in extra:
        raise InvalidField(EXTRA, in_json(sent[EXTRA]), "an object of fields, as beside it")
    return extra


def _all_read(sent: Mapping[str, object], struct: type[msgspec.Struct]) -> dict[str, object]:
    kinds = _kinds(struct)
    read = {name: _read(name, value, kinds.get(name, "any")) for name, value in sent.items()}
    return {name: value for name, value in read.items() if value is not msgspec.UNSET}


def _read(name: str, value: object, kind: Kind) -> object:
    """The value that is meant; UNSET: none."""
    if isinstance(value, str):
        return value if name in AS_WRITTEN else _of_text(name, value.strip(), kind)
    if kind == "number" and isinstance(value, float) and value.is_integer():
        return int(value)
    if name == "megapixels" and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    if name == "response_format" and isinstance(value, dict) and value.keys() == {"type"}:
        return _read(name, value["type"], kind)
    return value


def _of_text(name: str, text: str, kind: Kind) -> object:
    if not text or (kind not in ("text", "any") and text.lower() in _NOTHING):
        return msgspec.UNSET
    match kind:
        case "list":
            return _from_json(text)
        case "choice":
            lower = text.lower()
            return _CHOICES.get(name, {}).get(lower, lower)
        case "truth":
            return _TRUTHS.get(text.lower(), text)
        case "number":
            return _number(text)
        case _:
            return _from_json(text) if kind == "any" and text.startswith("{") else text


def _number(text: str) -> object:
    """The text itself if it is none, or one that JSON cannot say."""
    value = _from_json(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text
    return int(value) if float(value).is_integer() else value


def _from_json(text: str) -> object:
    """What a JSON text holds; the text itself if it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


@cache
def _kinds(struct: type[msgspec.Struct]) -> dict[str, Kind]:
    hints = get_type_hints(struct, include_extras=False)
    return {name: _kind(hint) for name, hint in hints.items()}


def _kind(hint: Any) -> Kind:
    if get_origin(hint) in (Union, UnionType):
        kinds = [one for one in get_args(hint) if one is not NoneType]
        return _kind(kinds[0]) if len(kinds) == 1 else "any"
    if get_origin(hint) is Literal:
        return "choice"
    if get_origin(hint) is list:
        return "list"
    kinds_of: dict[Any, Kind] = {int: "number", float: "number", bool: "truth", str: "text"}
    return kinds_of.get(hint, "any")
