"""`/openapi.json`: an OpenAPI 3.1 document whose schemas are generated from the structs."""

import functools
from importlib.metadata import version
from typing import Final

import msgspec
from aiohttp import web

from services.gateway.http.body import FORM, JSON, MAX_BODY_BYTES
from services.gateway.http.core import GATEWAY
from services.gateway.openai.fields import EditsRequest, ImagesRequest
from services.gateway.openai.schemas import (
    DeletedModel,
    ErrorBody,
    Health,
    ImagesResponse,
    JobView,
    Model,
    ModelInfo,
    ModelList,
    NewModel,
    Readiness,
)
from services.gateway.openapi.schemas import (
    EDIT_EVENTS,
    INDEX,
    JOB_ID,
    TEXT,
    Json,
    event_stream,
    json_edit,
    ref,
    schemas,
)
from services.gateway.replies.middleware import IMAGE_ROUTE, OPEN_ROUTES

_ERRORS: Final = {
    400: "A field is unknown, of the wrong type or out of range; `param` names it.",
    401: "No bearer token was sent, or one that is not known.",
    403: "The token does not allow this.",
    404: "No such job, image or model.",
    408: "The body did not arrive in time.",
    409: "The job was cancelled by somebody else.",
    413: f"The body is over {MAX_BODY_BYTES} bytes.",
    415: "The body is of another type.",
    429: "A queue is full; `Retry-After` says when to try again.",
    500: "The job failed.",
    503: "The bus or a service does not answer, and `Retry-After` says when to try again; or a "
    "service takes no work (`not_served`), and the message says why.",
    504: "The job's deadline passed.",
}


_JOB_ERRORS: Final = tuple(code for code in _ERRORS if code not in (401, 404))
_STREAMED: Final = (
    "With `stream`, the answer is a stream of events: `partial_images` previews of each image, one "
    "`{}` per image in the order of finishing (`index` says which), or an `error` that ends the "
    "stream. It begins at once; when nothing happens for ten seconds, a comment is sent. "
    "A client that disconnects cancels its job."
)


async def show(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    catalogue = gateway.catalogue
    samplers = {sampler: None for card in catalogue.cards.values() for sampler in card.samplers}
    names = [one for name in catalogue.cards for one in (name, *catalogue.also_called(name))]
    body = document(tuple(names), tuple(samplers), gateway.access.tokens is not None)
    return web.Response(body=body, content_type="application/json")


@functools.cache
def document(
    models: tuple[str, ...] = (), samplers: tuple[str, ...] = (), secured: bool = False
) -> bytes:
    """`models`, `samplers`: what is served; empty: the document does not say. `secured`: the
    gateway wants bearer tokens."""
    paths = _paths()
    if secured:
        _secure(paths)
    schemes = {"bearer": {"type": "http", "scheme": "bearer"}} if secured else {}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Darkroom",
                "version": version("darkroom"),
                "description": "Image generation, compatible with OpenAI's Images API.",
            },
            "paths": paths,
            "components": {"schemas": schemas(models, samplers), "securitySchemes": schemes},
        }
    )


def _secure(paths: Json) -> None:
    """Every operation wants a token, but for the probes. An image at an address that cannot be
    guessed needs none."""
    for path, operations in paths.items():
        if path in OPEN_ROUTES:
            continue
        for operation in operations.values():
            none: list[Json] = [{}] if path == IMAGE_ROUTE else []
            operation["security"] = [*none, {"bearer": []}]
            operation["responses"]["401"] = {"description": _ERRORS[401], **_json(ErrorBody)}


def _paths() -> Json:
    return {
        "/v1/images/generations": {"post": _generate()},
        "/v1/images/edits": {"post": _edit()},
        IMAGE_ROUTE: {
            "get": _operation(
                "getImage",
                "One finished image of a job, for a day; without a token, if its id was random.",
                {"content": {f"image/{kind}": {} for kind in ("png", "jpeg", "webp")}},
                errors=(400, 404, 503),
                parameters=(("job_id", JOB_ID), ("index", INDEX)),
            )
        },
        "/v1/models": {
            "get": _operation("listModels", "All models.", _json(ModelList)),
            "post": _add_model(),
        },
        "/v1/models/{model}": {
            "get": _operation("getModel", "One model.", _json(Model), (404,), (("model", TEXT),)),
            "delete": _operation(
                "deleteModel",
                "Serve a model no more; for tokens of operators. Its jobs end as model_removed.",
                _json(DeletedModel),
                (400, 403, 503),
                (("model", TEXT),),
            ),
        },
        "/v1/jobs/{job_id}": {
            "get": _job("getJob", "How a job stands, whoever submitted it."),
            "delete": _job("cancelJob", "Cancel a job; answers with how it stands then."),
        },
        "/v1/model_info": {
            "get": _operation("getModelInfo", "Where the default model is from.", _json(ModelInfo))
        },
        "/healthz": {"get": _operation("healthz", "The process is alive.", _json(Health))},
        "/readyz": {"get": _readyz("readyz")},
        "/health": {"get": _readyz("health")},
        "/metrics": {
            "get": _operation(
                "metrics",
                "The fleet's metrics in Prometheus' exposition format.",
                {"content": {"text/plain": {"schema": {"type": "string"}}}},
                errors=(503,),
            )
        },
    }


def _generate() -> Json:
    answer = _json(ImagesResponse)
    answer["content"]["text/event-stream"] = {"schema": event_stream()}
    about = f"Draw images. {_STREAMED.format('image_generation.completed')}"
    operation = _operation("createImage", about, answer, _JOB_ERRORS)
    operation["requestBody"] = {"required": True, **_json(ImagesRequest)}
    _name_job(operation)
    return operation


def _add_model() -> Json:
    about = "Serve a model more, beside what is served; for tokens of operators."
    operation = _operation("addModel", about, _json(Model), (400, 403, 503))
    operation["responses"]["201"] = operation["responses"].pop("200")
    operation["requestBody"] = {"required": True, **_json(NewModel)}
    return operation


def _edit() -> Json:
    answer = _json(ImagesResponse)
    answer["content"]["text/event-stream"] = {"schema": event_stream(EDIT_EVENTS)}
    about = (
        "Draw images that begin from an image. Where its mask (or, without one, the image itself) "
        "is fully transparent it is drawn anew, and everywhere else the result equals the image; "
        f"without either, all of it is drawn anew. {_STREAMED.format('image_edit.completed')}"
    )
    operation = _operation("createImageEdit", about, answer, _JOB_ERRORS)
    content = {FORM: {"schema": ref(EditsRequest)}, JSON: {"schema": json_edit()}}
    operation["requestBody"] = {"required": True, "content": content}
    _name_job(operation)
    return operation


def _name_job(operation: Json) -> None:
    about = {"description": "The job, once there is one.", "schema": JOB_ID}
    for response in operation["responses"].values():
        response["headers"] = {"X-Job-Id": about}


def _readyz(name: str) -> Json:
    operation = _operation(name, "Whether a request could be served now.", _json(Readiness))
    operation["responses"]["503"] = {"description": "It could not.", **_json(Readiness)}
    return operation


def _job(name: str, about: str) -> Json:
    return _operation(name, about, _json(JobView), (400, 404, 503), (("job_id", JOB_ID),))


def _operation(
    name: str,
    about: str,
    answer: Json,
    errors: tuple[int, ...] = (),
    parameters: tuple[tuple[str, Json], ...] = (),
) -> Json:
    responses: Json = {"200": {"description": "Done.", **answer}}
    for code in errors:
        responses[str(code)] = {"description": _ERRORS[code], **_json(ErrorBody)}
    operation: Json = {"operationId": name, "summary": about, "responses": responses}
    if parameters:
        operation["parameters"] = [
            {"name": path, "in": "path", "required": True, "schema": schema}
            for path, schema in parameters
        ]
    return operation


def _json(struct: type[msgspec.Struct]) -> Json:
    return {"content": {"application/json": {"schema": ref(struct)}}}
