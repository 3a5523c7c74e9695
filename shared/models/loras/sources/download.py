"""One file over HTTP: all of it into a file of ours, or only its header."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from shared.errors import AdapterUnusable
from shared.models.files.safetensors_header import (
    Header,
    NotSafetensors,
    header_bytes,
    parse_header,
)
from shared.models.loras.sources.hosts import Hosts
from shared.models.loras.sources.http import BLOCK_BYTES, expect, opened
from shared.models.loras.sources.store import Part

FIRST_BYTES: Final = 256 * 1024
"""Of a file of which only the header is wanted: most headers are shorter."""
T = TypeVar("T")


class Origin(msgspec.Struct, frozen=True):
    """Where a file is. `constant`: it will never be another one."""

    label: str
    url: str
    sha256: str | None
    constant: bool

    @property
    def key(self) -> str:
        """What it is kept under."""
        return hashlib.sha256(f"{self.url}\n{self.sha256 or ''}".encode()).hexdigest()[:40]


async def download(
    origin: Origin, hosts: Hosts, part: Part, max_bytes: int, etag: str = ""
) -> str | None:
    """Write the file of `origin` into `part`, whole and checked, and return its ETag, which may be
    empty; None if it is still the one that had `etag`. What its beginning or length rules out is
    not read on. Raises `AdapterUnusable`."""
    asked = {"If-None-Match": etag} if etag else {}
    async with opened(origin.label, origin.url, hosts, asked) as response:
        if etag and response.status == 304:
            return None
        expect(origin.label, response, 200)
        _check_size(origin, response.content_length or 0, max_bytes)
        await _written(origin, part, response, max_bytes)
        return response.headers.get("ETag", "")


async def _written(
    origin: Origin, part: Part, response: aiohttp.ClientResponse, max_bytes: int
) -> None:
    digest, start, header, size = hashlib.sha256(), bytearray(), None, 0
    async for block in response.content.iter_chunked(BLOCK_BYTES):
        size += len(block)
        if header is None:
            start += block
            header = await _parsed(origin, start)
        _check_size(origin, size if header is None else max(size, header.file_bytes), max_bytes)
        await finished(_append, part, digest, block)
    if header is None or header.file_bytes != size:
        whole = "with a header" if header is None else f"of {header.file_bytes}"
        raise AdapterUnusable(origin.label, f"it has {size} bytes, and is no whole file {whole}")
    if origin.sha256 is not None and digest.hexdigest() != origin.sha256:
        found = digest.hexdigest()
        raise AdapterUnusable(origin.label, f"its sha256 is {found}, not {origin.sha256}")


async def read_header(origin: Origin, hosts: Hosts) -> Header:
    """The header of the file of `origin`, and little more of it. Raises `AdapterUnusable`."""
    start = bytearray()
    while (header := await _parsed(origin, start)) is None:
        before = len(start)
        await _more(origin, hosts, start)
        if len(start) <= before:
            raise AdapterUnusable(origin.label, f"it ends after {before} bytes, in its header")
    return header


async def _more(origin: Origin, hosts: Hosts, start: bytearray) -> None:
    """Read on, up to the end of the header as far as that is known."""
    before, end = len(start), max(FIRST_BYTES, _needed(origin, start))
    asked = {"Range": f"bytes={before}-{end - 1}"}
    async with opened(origin.label, origin.url, hosts, asked) as response:
        expect(origin.label, response, 200, 206)
        if response.status == 200:  # it does not know ranges, and begins at the beginning
            start.clear()
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {before}-"):
            raise AdapterUnusable(origin.label, f"{response.host} sends another range")
        async for block in response.content.iter_chunked(BLOCK_BYTES):
            start += block
            if len(start) >= _needed(origin, start):
                break


def _needed(origin: Origin, start: bytearray) -> int:
    """Bytes to the end of the header, or of its length, before that is known."""
    try:
        return header_bytes(start) if len(start) >= 8 else 8
    except NotSafetensors as error:
        raise AdapterUnusable(origin.label, str(error)) from error


async def _parsed(origin: Origin, start: bytearray) -> Header | None:
    if len(start) < _needed(origin, start):
        return None
    try:
        return await asyncio.to_thread(parse_header, bytes(start))
    except NotSafetensors as error:
        raise AdapterUnusable(origin.label, str(error)) from error


def _check_size(origin: Origin, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        reason = f"it has at least {size} bytes, and the limit is {max_bytes}"
        raise AdapterUnusable(origin.label, reason)


def _append(part: Part, digest: Any, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[part.file.write(view) :]
    digest.update(block)


async def finished(function: Callable[..., T], *arguments: object) -> T:
    """As `asyncio.to_thread`, but when this returns the thread is done, even if cancelled: what it
    uses may be closed then."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
