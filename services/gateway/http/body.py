"""Bodies of requests, read with bounds on their size, their time and their number."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from services.gateway.http.core import GATEWAY
from shared.errors import InvalidRequest
from shared.jobs.travel import MAX_UPLOAD_BYTES

SMALL_BODY_BYTES: Final = 1024 * 1024
"""Two prompts of the longest kind, escaped, fit."""
MAX_BODY_BYTES: Final = SMALL_BODY_BYTES + 4 * MAX_UPLOAD_BYTES // 3
"""Of a request: and all its images, in base64."""
JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
BODY_SECONDS: Final = 60.0
"""How long a body may take to arrive,"""
LEAST_RATE: Final = 128 * 1024
"""and a second more for each so many bytes of it that came."""


@dataclass(slots=True)
class Form:
    """A multipart body: its text fields, and its files, by name."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)


def content_type(request: web.Request, *allowed: str) -> str:
    """Of the body, which has to be one of these."""
    if request.content_type not in allowed:
        kinds = " or ".join(allowed)
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Type: {request.content_type!r} is not allowed; allowed: {kinds}"
        )
    return request.content_type


async def read_json(request: web.Request, large: ExitStack) -> bytearray:
    """A body with images takes room among the large ones, which `large` gives back."""
    async with _reading(request, JSON) as time_limit:
        meter = _Meter(request, large, time_limit)
        body = bytearray()
        # Unlike `request.read()`, which keeps the body for as long as there is a request.
        async for chunk in request.content.iter_any():
            body += meter.count(chunk)
        return body


async def read_form(request: web.Request, large: ExitStack, files: Collection[str]) -> Form:
    """As `read_json`. Parts named as `files` are, with or without `[]` behind it, are files; the
    others are text, each at most once. Raises `InvalidRequest`."""
    async with _reading(request, FORM) as time_limit:
        meter, form = _Meter(request, large, time_limit), Form()
        try:
            async for part in await request.multipart():
                await _take(form, part, meter, files)
        except (ValueError, RuntimeError, HttpProcessingError) as error:
            allowed = "a body as multipart/form-data has it"
            raise InvalidRequest("body", str(error), allowed) from error
        return form


async def _take(form: Form, part: object, meter: "_Meter", files: Collection[str]) -> None:
    if not isinstance(part, BodyPartReader) or not part.name:
        raise InvalidRequest("body", "a part without a name", "parts that are named as fields are")
    content = bytearray()
    while chunk := await part.read_chunk():
        content += meter.count(chunk)
    name = part.name.removesuffix("[]")
    if name in files:
        if content or part.filename:  # else it is a field that was not filled in
            form.files.setdefault(name, []).append(bytes(content))
        return
    if part.name in form.texts:
        raise InvalidRequest(part.name, "this field, twice,", "this field once")
    try:
        form.texts[part.name] = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(part.name, bytes(content), "text in UTF-8") from error


class _Meter:
    """Counts a body as it arrives, and takes room for it: at once for all that it says it has."""

    def __init__(self, request: web.Request, large: ExitStack, time_limit: asyncio.Timeout) -> None:
        self._budget = request.app[GATEWAY].large
        self._large = large
        self._time_limit = time_limit
        self._ends = time_limit.when() or math.inf
        self._bytes = 0
        self._reserved = SMALL_BODY_BYTES
        announced = request.content_length or 0
        self._refuse_too_large(announced)
        self._take(announced)

    def count(self, chunk: bytes) -> bytes:
        self._bytes += len(chunk)
        self._refuse_too_large(self._bytes)
        self._take(self._bytes)
        self._time_limit.reschedule(self._ends + self._bytes / LEAST_RATE)
        return chunk

    def _take(self, wanted: int) -> None:
        if wanted > self._reserved:
            more = max(wanted - self._reserved, SMALL_BODY_BYTES)
            self._large.enter_context(self._budget.taken(more))
            self._reserved += more

    def _refuse_too_large(self, found: int) -> None:
        if found > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, found)


@asynccontextmanager
async def _reading(request: web.Request, wanted: str) -> AsyncIterator[asyncio.Timeout]:
    """Within, the body of a request that says it has one of this type is read."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Encoding: {encoding!r} is not allowed; allowed: none, or identity"
        )
    content_type(request, wanted)
    try:
        async with asyncio.timeout(BODY_SECONDS) as time_limit:
            yield time_limit
    except web.RequestPayloadError as error:
        raise InvalidRequest("body", str(error), "a body as its headers say") from error
    except TimeoutError as error:
        text = f"the body did not arrive within {BODY_SECONDS:.0f} s"
        text += f", and a second for each {LEAST_RATE} bytes of it"
        raise web.HTTPRequestTimeout(text=text) from error
