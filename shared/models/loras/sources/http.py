"""One GET for a LoRA: from allowed hosts only, also after redirects, with a bound on every wait."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from shared.errors import AdapterUnusable
from shared.models.loras.sources.hosts import Hosts, parse_url

MAX_REDIRECTS: Final = 5
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 15.0
"""Longest wait for the next bytes of an answer."""
BLOCK_BYTES: Final = 1024 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
)


@asynccontextmanager
async def opened(
    label: str, address: str, hosts: Hosts, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to a GET of `address`, whatever its status, but for redirects, which were
    followed. Leaving closes the connection. Raises `AdapterUnusable` about `label`, also for an
    answer that ends too soon within."""
    session = aiohttp.ClientSession(
        headers={"Accept-Encoding": "identity", **headers},
        auto_decompress=False,  # what is packed is refused: it may be of any size, unpacked
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_TIMEOUT,
        read_bufsize=BLOCK_BYTES,
    )
    try:
        async with session, await _followed(session, label, address, hosts) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise AdapterUnusable(label, f"{response.host} sends it packed")
            yield response
            response.close()  # what is not read is not wanted
    except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
        reason = str(error) or type(error).__name__
        raise AdapterUnusable(label, f"it cannot be fetched: {reason}") from error


async def _followed(
    session: aiohttp.ClientSession, label: str, address: str, hosts: Hosts
) -> aiohttp.ClientResponse:
    url = URL(address, encoded=True)
    for _ in range(MAX_REDIRECTS + 1):
        if not hosts.allow(url):
            origin = f"{url.scheme}://{url.host}:{url.port}"
            raise AdapterUnusable(label, f"{origin} is not a host to fetch LoRAs from")
        response = await session.get(url, allow_redirects=False)
        if response.status not in _REDIRECTS:
            return response
        response.close()
        url = _target(label, url, response.headers.get("Location", ""))
    raise AdapterUnusable(label, f"more than {MAX_REDIRECTS} redirects")


def _target(label: str, url: URL, location: str) -> URL:
    try:
        target = parse_url(str(url.join(URL(location, encoded=True)).with_fragment(None)))
    except ValueError:
        target = None
    if target is None:
        raise AdapterUnusable(label, f"{url.host} redirects to what is no address")
    return target


async def body(label: str, response: aiohttp.ClientResponse, most: int) -> bytes:
    """All of it. Raises `AdapterUnusable` if it has more than `most` bytes."""
    found = bytearray()
    async for block in response.content.iter_chunked(BLOCK_BYTES):
        found += block
        if len(found) > most:
            raise AdapterUnusable(label, f"{response.host} answers more than {most} bytes")
    return bytes(found)


def expect(label: str, response: aiohttp.ClientResponse, *statuses: int) -> None:
    """Raises `AdapterUnusable` if the answer has none of them."""
    if response.status not in statuses:
        raise AdapterUnusable(label, f"{response.host} answers {response.status}")
