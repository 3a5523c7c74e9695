"""OpenAI's Images routes as pure functions: what is asked, and what an answer means."""

import base64
import binascii
from typing import Any, Final, Literal

import msgspec

from loadgen.outcomes.outcome import RequestTemplate, Shot
from loadgen.targets.base import Answer
from loadgen.workload.controls import choices
from shared.errors import InvalidRequest
from shared.messages import ControlChoice

PATH: Final = "/images/generations"
SIGNATURES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
"""First bytes of png, jpeg and webp."""

_NAMES: Final = {"steps": "num_inference_steps", "guidance": "guidance_scale"}
"""Fields of a request that HTTP calls otherwise."""
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 422, 429, 503})
"""Statuses that say no before any work was done."""


ResponseFormat = Literal["b64_json", "url"]
"""How images are asked for."""

_DEFAULTS: Final = RequestTemplate()


class _Image(msgspec.Struct):
    b64_json: str | None = None
    url: str | None = None


class _Reply(msgspec.Struct):
    data: list[_Image]


class _Detail(msgspec.Struct):
    code: str | int | None = None


class _Problem(msgspec.Struct):
    error: _Detail


def base_url(url: str) -> str:
    """`url` up to and including `/v1`. Raises `InvalidRequest`."""
    if not url.startswith(("http://", "https://")) or len(url.split("/")[2]) == 0:
        raise InvalidRequest(
            "--url", url, "http://HOST:PORT or https://HOST:PORT, with or without /v1"
        )
    bare = url.rstrip("/").removesuffix(PATH)
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def body(
    shot: Shot, takes: frozenset[str], response_format: ResponseFormat | None = "b64_json"
) -> dict[str, Any]:
    """The JSON object for `shot`. The tenant goes as OpenAI's `user`. `response_format`: None
    leaves it out, for servers and models that refuse it. Raises `InvalidRequest` if a control image
    cannot be read."""
    request = shot.request
    sent: dict[str, Any] = {"prompt": request.prompt, "n": request.n, "user": shot.tenant}
    if response_format is not None:
        sent["response_format"] = response_format
    if request.width is not None and request.height is not None:
        sent["size"] = f"{request.width}x{request.height}"
    for field in sorted(takes - {"prompt", "n", "width", "height"}):
        value = getattr(request, field)
        if value != getattr(_DEFAULTS, field):
            sent[_NAMES.get(field, field)] = value
    if "loras" in sent:
        sent["loras"] = [{"name": name} for name in request.loras]
    if "controls" in sent:
        sent["controls"] = [_control(choice) for choice in choices(request.controls)]
    return sent


def _control(choice: ControlChoice) -> dict[str, Any]:
    image = base64.b64encode(choice.image).decode()
    return {"model": choice.model, "image": image, "scale": choice.scale}


def answer(status: int, data: bytes, wanted: int) -> Answer:
    """What a reply means. A 200 without `wanted` images is a failure: a server that answers
    quickly with nothing must not look fast."""
    if status != 200:
        return Answer("rejected" if status in _REFUSED else "failed", _code(status, data))
    try:
        images = msgspec.json.decode(data, type=_Reply).data
        sizes = [_size(image) for image in images]
    except (msgspec.DecodeError, binascii.Error, ValueError):
        return Answer("failed", "bad_reply")
    if len(sizes) != wanted:
        return Answer("failed", "wrong_image_count", len(sizes), sum(sizes))
    return Answer("done", None, len(sizes), sum(sizes))


def _size(image: _Image) -> int:
    """Bytes of an image; 0 for one that is only an address. Raises `ValueError` for no image."""
    if image.b64_json is None:
        if image.url is None:
            raise ValueError("neither b64_json nor url")
        return 0
    data = base64.b64decode(image.b64_json, validate=True)
    if not data.startswith(SIGNATURES):
        raise ValueError("not a png, jpeg or webp")
    return len(data)


def _code(status: int, data: bytes) -> str:
    """The error's own code where the body has one (OpenAI's shape), else `http_STATUS`."""
    try:
        code = msgspec.json.decode(data, type=_Problem).error.code
    except msgspec.DecodeError:
        code = None
    return f"http_{status}" if code is None else str(code)
