"""Bodies of requests, read with bounds on their size, their time and their number."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from services.gateway.core import GATEWAY
from shared.errors import InvalidRequest
from shared.jobs.validate import MAX_PICTURE_BYTES

SMALL_BODY_BYTES: Final = 1024 * 1024
"""Two prompts of the longest kind, escaped, fit."""
MAX_BODY_BYTES: Final = SMALL_BODY_BYTES + 4 * MAX_PICTURE_BYTES // 3
"""Of a request: and all its pictures, in base64."""
BODY_SECONDS: Final = 60.0
"""How long a body may take to arrive."""


@dataclass(slots=True)
class Form:
    """A multipart body: its text fields, and its files, by name."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)


async def read_json(request: web.Request, large: ExitStack) -> bytes:
    """A body with pictures takes a place among the large ones, which `large` gives back."""
    async with _reading(request, "application/json"):
        meter = _Meter(request, large)
        body = bytearray()
        # Unlike `request.read()`, which keeps the body for as long as there is a request.
        async for chunk in request.content.iter_any():
            body += meter.count(chunk)
        return bytes(body)


async def read_form(request: web.Request, large: ExitStack, files: Collection[str]) -> Form:
    """As `read_json`. Parts named as `files` are, with or without `[]` behind it, are files; the
    others are text, each at most once. Raises `InvalidRequest`."""
    async with _reading(request, "multipart/form-data"):
        meter, form = _Meter(request, large), Form()
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
        form.files.setdefault(name, []).append(bytes(content))
        return
    if part.name in form.texts:
        raise InvalidRequest(part.name, "this field, twice,", "this field once")
    try:
        form.texts[part.name] = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(part.name, bytes(content), "text in UTF-8") from error


class _Meter:
    """Counts a body as it arrives."""

    def __init__(self, request: web.Request, large: ExitStack) -> None:
        self._gateway = request.app[GATEWAY]
        self._large = large
        self._bytes = 0

    def count(self, chunk: bytes) -> bytes:
        before, self._bytes = self._bytes, self._bytes + len(chunk)
        if self._bytes > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, self._bytes)
        if before <= SMALL_BODY_BYTES < self._bytes:
            self._large.enter_context(self._gateway.large_slot())
        return chunk


@asynccontextmanager
async def _reading(request: web.Request, content_type: str) -> AsyncIterator[None]:
    """Within, the body of a request that says it has one of this type is read."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Encoding: {encoding!r} is not allowed; allowed: none, or identity"
        )
    if request.content_type != content_type:
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Type: {request.content_type!r} is not allowed; allowed: {content_type}"
        )
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except web.RequestPayloadError as error:
        raise InvalidRequest("body", str(error), "a body as its headers say") from error
    except TimeoutError as error:
        text = f"the body did not arrive within {BODY_SECONDS:.0f} s"
        raise web.HTTPRequestTimeout(text=text) from error
