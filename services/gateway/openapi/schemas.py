"""The document's schemas: generated from the structs, then what a struct cannot say."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from services.gateway.openai.edit_images import ALLOWED
from services.gateway.openai.fields import FILE_FIELDS, EditsRequest, ImagesRequest
from services.gateway.openai.schemas import (
    CompletedEvent,
    DeletedModel,
    EditCompletedEvent,
    EditPartialImageEvent,
    ErrorBody,
    ErrorEvent,
    Health,
    ImagesResponse,
    JobView,
    Model,
    ModelInfo,
    ModelList,
    NewModel,
    PartialImageEvent,
    Readiness,
)
from shared.messages import JOB_ID_PATTERN
from shared.models.loras.sources.origins import KINDS

Json = dict[str, Any]

EVENTS: Final = (PartialImageEvent, CompletedEvent, ErrorEvent)
EDIT_EVENTS: Final = (EditPartialImageEvent, EditCompletedEvent, ErrorEvent)
_STRUCTS: Final = (
    ImagesRequest,
    EditsRequest,
    ImagesResponse,
    *EVENTS,
    *EDIT_EVENTS[:2],
    Model,
    ModelInfo,
    ModelList,
    NewModel,
    DeletedModel,
    JobView,
    ErrorBody,
    Health,
    Readiness,
)
JOB_ID: Final[Json] = {"type": "string", "pattern": JOB_ID_PATTERN}
INDEX: Final[Json] = {"type": "integer", "minimum": 0, "maximum": 999}
TEXT: Final[Json] = {"type": "string", "minLength": 1}


def schemas(models: Sequence[str], samplers: Sequence[str]) -> Json:
    """All components. `models`, `samplers`: what is served, if that is known."""
    template = "#/components/schemas/{name}"
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template=template)
    _complete(components["ImagesRequest"], models, samplers)
    _complete(components["EditsRequest"], models, samplers)
    _as_form(components["EditsRequest"])
    components["Lora"]["oneOf"] = [_has(kind, {"type": "string"}) for kind in KINDS]
    return components


def _complete(request: Json, models: Sequence[str], samplers: Sequence[str]) -> None:
    _choices(request, "model", models)
    _choices(request, "sampler", samplers)
    _shape(request, "size", {"pattern": "^(auto|[0-9]{1,5} ?[xX×*] ?[0-9]{1,5})$"})
    request["allOf"] = list(_COMBINATIONS)


def _as_form(request: Json) -> None:
    """Files, and lists that are JSON texts: what a form's fields are that a struct cannot say."""
    for name, allowed in FILE_FIELDS.items():
        request["properties"][name] = {
            "type": "string",
            "format": "binary",
            "description": f"Allowed: {allowed}.",
        }
    request["required"] = [*request["required"], "image"]
    for name in ("loras", "controls"):
        listed = request["properties"][name]["anyOf"][0]
        request["properties"][name] = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": listed,
            "description": listed["description"],
        }
    request["allOf"] = [one for one in request["allOf"] if one not in _NEED_LISTS]


def json_edit() -> Json:
    """A body in which images are texts."""
    image = {"description": f"Allowed: {ALLOWED}; or a list of one such, or an object around it."}
    return {
        "type": "object",
        "description": "The fields of the form; loras and controls are lists.",
        "required": ["prompt", "image"],
        "properties": {
            "prompt": {"type": "string"},
            **dict.fromkeys(FILE_FIELDS, image),
        },
    }


def ref(struct: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def event_stream(events: Sequence[type[msgspec.Struct]] = EVENTS) -> Json:
    """One of `events` as a client's parser of server-sent events hands it over."""
    return {
        "oneOf": [
            {
                "type": "object",
                "required": ["event", "data"],
                "properties": {
                    "event": {"const": event.__struct_config__.tag},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": ref(event),
                    },
                },
            }
            for event in events
        ]
    }


def _choices(request: Json, field: str, allowed: Sequence[str]) -> None:
    if allowed:
        _shape(request, field, {"enum": list(allowed)})


def _shape(request: Json, field: str, limits: Json) -> None:
    """Add `limits` to the alternative of a nullable field that is text."""
    for one in request["properties"][field]["anyOf"]:
        if one.get("type") == "string":
            one.update(limits)


def _has(field: str, values: Json) -> Json:
    """Matches a request in which `field` is there, with such a value."""
    return {"required": [field], "properties": {field: values}}


def _combination(when: Json, then: Json) -> Json:
    return {"if": when, "then": then}


_NEED_LISTS: Final = tuple(
    _combination(
        _has(field, {"type": "integer", "minimum": 1}),
        _has(needed, {"type": "array", "minItems": 1}),
    )
    for field, needed in (("lora_late_steps", "loras"), ("control_lag", "controls"))
)
_COMBINATIONS: Final = (
    _combination(
        _has("partial_images", {"type": "integer", "minimum": 1}), _has("stream", {"const": True})
    ),
    _combination(
        _has("stream", {"const": True}),
        {"properties": {"response_format": {"enum": ["b64_json", None]}}},
    ),
    _combination(
        _has("output_compression", {"type": "integer", "maximum": 99}),
        _has("output_format", {"enum": ["jpeg", "webp"]}),
    ),
    *_NEED_LISTS,
)
"""As `api._check_combinations` has them."""
