"""Servers with OpenAI's Images routes, Darkroom's gateway among them."""

import io
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import aiohttp
import msgspec

from loadgen.outcomes.occupancy import HttpSource, Source
from loadgen.outcomes.outcome import Shot
from loadgen.targets.base import HTTP_FIELDS, Answer, unsent
from loadgen.targets.images import PATH, ResponseFormat, answer, base_url, body
from shared.errors import InvalidRequest, Misconfigured

_CERTIFICATE: Final = re.compile(
    "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)
JSON: Final = {"Content-Type": "application/json"}


class HttpTarget:
    """`base` is the address up to and including `/v1`; `takes` says which fields are sent, and
    `response_format` how images are asked for, if it is said at all."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: str,
        kind: str,
        takes: frozenset[str],
        response_format: ResponseFormat | None = "b64_json",
    ) -> None:
        self.name = f"{kind} at {base}"
        self.takes = takes
        self.source: Source = HttpSource(session, base.removesuffix("/v1"))
        self._session = session
        self._base = base
        self._response_format = response_format

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        kind: str = "darkroom",
        takes: frozenset[str] = HTTP_FIELDS,
        response_format: ResponseFormat | None = "b64_json",
        api_key: str | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
    ) -> AsyncIterator[Self]:
        """Connections are made as they are needed, without a bound of their own: the runner has
        one, and a queue here would be invisible. `ca`: file with an authority to trust beside
        those of the system. `certificate`: file of the only one that counts. Raises
        `InvalidRequest` for a bad `url`, and `Misconfigured` for a file that holds no
        certificate."""
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        async with aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(
                limit=0, ssl=only(certificate) if certificate else trusted(ca)
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        ) as session:
            yield cls(session, base_url(url), kind, takes, response_format)

    async def send(self, shot: Shot) -> Answer:
        try:
            sent = io.BytesIO(msgspec.json.encode(body(shot, self.takes, self._response_format)))
            async with self._session.post(
                self._base + PATH, data=sent, headers=JSON, allow_redirects=False
            ) as reply:
                data = await reply.read()
        except (aiohttp.ClientError, OSError) as error:  # timeouts are OSErrors
            return unsent(error) or Answer("failed", type(error).__name__)
        except InvalidRequest as error:
            return unsent(error) or Answer("rejected", error.code)
        return answer(reply.status, data, shot.request.n)


def trusted(ca: Path | None) -> ssl.SSLContext:
    """The system's authorities, and the one in `ca`. Raises `Misconfigured`."""
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(f"{ca} holds no certificate of an authority: {error}") from error
    return context


def only(certificate: Path) -> ssl.SSLContext:
    """The first certificate in this file, which is the server's own, whatever names and whichever
    authority it has: it is known, and need not be vouched for. Raises `Misconfigured`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        found = _CERTIFICATE.search(certificate.read_text(encoding="ascii", errors="replace"))
        context.load_verify_locations(cadata="" if found is None else found[0])
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Misconfigured(f"{certificate} holds no certificate: {error}") from error
    return context
