"""The document's schemas: generated from the structs, then what a struct cannot say."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from services.gateway.request import ImagesRequest
from services.gateway.schemas import (
    CompletedEvent,
    ErrorBody,
    ErrorEvent,
    Health,
    ImagesResponse,
    JobView,
    Model,
    ModelList,
    PartialImageEvent,
    Readiness,
)
from shared.adapters.origins import KINDS
from shared.messages import JOB_ID_PATTERN

Json = dict[str, Any]

EVENTS: Final = (PartialImageEvent, CompletedEvent, ErrorEvent)
_STRUCTS: Final = (
    ImagesRequest,
    ImagesResponse,
    *EVENTS,
    Model,
    ModelList,
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
    request = components["ImagesRequest"]
    _choices(request, "model", models)
    _choices(request, "sampler", samplers)
    _shape(request, "size", {"pattern": "^(auto|[0-9]{1,5}x[0-9]{1,5})$"})
    request["allOf"] = list(_COMBINATIONS)
    components["Lora"]["oneOf"] = [_has(kind, {"type": "string"}) for kind in KINDS]
    return components


def ref(struct: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def event_stream() -> Json:
    """One event as a client's parser of server-sent events hands it over."""
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
            for event in EVENTS
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
    _combination(
        _has("num_inference_steps", {"type": "integer"}),
        {"properties": {"quality": {"enum": ["auto", None]}}},
    ),
    *(
        _combination(
            _has(field, {"type": "integer", "minimum": 1}),
            _has(needed, {"type": "array", "minItems": 1}),
        )
        for field, needed in (("lora_late_steps", "loras"), ("control_lag", "controls"))
    ),
)
"""As `api._check_combinations` has them."""
