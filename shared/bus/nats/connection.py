"""One client connection: what is sent, asked and heard, with retries.

The client library reconnects for ever. What was under way when the connection broke fails here
at once, instead of waiting for a timeout, so that a retry can follow as soon as the server is back.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from nats import errors
from nats.aio.client import Client

from shared.bus.base import Headers, Message
from shared.bus.nats import identity
from shared.bus.nats.pending_requests import PendingRequests
from shared.bus.nats.translation import (
    HEADER_ROOM,
    NobodyListens,
    payload_bytes,
    status,
    translated,
)
from shared.errors import BusUnavailable, Misconfigured, PayloadTooLarge
from shared.security.keys import Credentials, inbox_of

log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPT: Final = 4.0
"""Seconds one attempt of a durable call may take before it is repeated. It starts when there is a
connection, and fails at once when that breaks."""

PAUSE: Final = 0.05
"""Seconds between attempts; a broken connection is waited for instead."""

NO_HEADERS: Final[Headers] = {}


class Connection:
    def __init__(self, name: str, budget: float, credentials: Credentials | None = None) -> None:
        self.name = name
        self.budget = budget
        self.max_payload = 0
        self._credentials = credentials
        own = "_INBOX" if credentials is None else inbox_of(credentials.public)
        self.inbox = f"{own}.{secrets.token_hex(8)}"
        self.dropped = 0
        self.losses: list[Callable[[], None]] = []
        """Called whenever the connection is lost, or closed for good."""
        self._client = Client()
        self._tls: ssl.SSLContext | None = None
        self._up = asyncio.Event()
        self._closed_because = ""
        self._closed = asyncio.Event()
        self._last_error = ""
        self._denials = identity.Denials()
        self._requests = PendingRequests(self.inbox)
        self._stops: dict[int, Callable[[], Awaitable[None]]] = {}
        self._numbers = itertools.count()

    async def open(self, url: str) -> None:
        """Connect, trying until the budget is spent. Raises `Misconfigured` if the server does not
        take our credentials, or is too old."""
        identified = identity.options(self._credentials)
        self._tls = identified.get("tls")
        try:
            async with asyncio.timeout(self.budget):
                await self._client.connect(
                    servers=url.split(","),
                    name=self.name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,
                    connect_timeout=2,
                    ping_interval=3,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_lost,
                    reconnected_cb=self._on_up,
                    closed_cb=self._on_closed,
                    **identified,
                )
        except (TimeoutError, errors.Error, OSError) as error:
            reason = f"no connection within {self.budget:.0f} s: {self._client.last_error}"
            await self._terminate()
            raise BusUnavailable("connect", reason) from error
        except Misconfigured:
            await self._terminate()
            raise
        await self._check_version()
        self.max_payload = self._client.max_payload - HEADER_ROOM
        self._up.set()
        await self.listen(self._requests.subjects, "", self._requests.answered)

    @property
    def clustered(self) -> bool:
        """Whether the server is one of several, so that what is read from one may be behind."""
        return bool(self._client._server_info.get("cluster"))

    async def _check_version(self) -> None:
        version = self._client.connected_server_version
        try:
            identity.check_version(version.major, version.minor)
        except Misconfigured:
            await self._client.close()
            raise

    async def _terminate(self) -> None:
        """Close what never was a connection. After a failed TLS handshake the library would wait
        for ever for the socket that it has closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._client.close()

    async def close(self) -> None:
        if not self._closed_because:
            if self._up.is_set():
                with contextlib.suppress(BusUnavailable):
                    await self.settle(timeout=2)
            else:  # the library leaves its tasks behind when it finds the socket broken
                for stop in list(self._stops.values()):
                    await stop()
            self._closed_because = f"the bus of {self.name} was closed"
            # It writes to the broken socket once more; Python 3.12 answers that with a TypeError.
            with contextlib.suppress(OSError, TypeError):
                await self._client.close()

    async def publish(
        self, subject: str, data: bytes, headers: Headers | None = None, reply: str = ""
    ) -> None:
        """Send once. Without a connection nobody can hear it: it is dropped and counted."""
        self.check(subject, data, headers)
        if self._up.is_set():
            with translated(subject):
                await self._client.publish(subject, data, reply, headers)
        else:
            self.dropped += 1

    async def collect(
        self,
        subject: str,
        data: bytes,
        headers: Headers | None,
        timeout: float,
        last: Callable[[Message], bool],
    ) -> tuple[list[Message], bool]:
        """Ask once and gather answers up to the one for which `last` holds, or until `timeout`;
        returns them, and whether the last was among them."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        await self.ready(timeout)
        async with self._requests.waiting(subject, deadline - clock(), last) as (request, inbox):
            await self.publish(subject, data, headers, inbox)
            complete = await request.done
        return request.answers, complete

    async def settle(self, timeout: float) -> None:
        """Return when the server has dealt with everything sent so far: a message to ourselves
        has made the round. (The library's `flush` sends its ping ahead of what is buffered.)"""
        await self.ready(timeout)
        async with self._requests.waiting("", timeout, _any) as (request, inbox):
            await self.publish(inbox, b"")
            if not await request.done:
                raise BusUnavailable("connection", f"no echo within {timeout:.3g} s")

    async def ask(
        self, subject: str, data: bytes, timeout: float, headers: Headers | None = None
    ) -> Message:
        """One answer, one attempt."""
        answers, complete = await self.collect(subject, data, headers, timeout, _any)
        if not complete:
            raise BusUnavailable(subject, f"no answer within {timeout:.3g} s")
        if status(answers[0]) == "503":
            raise NobodyListens(subject)
        return answers[0]

    async def persist(
        self,
        attempt: Callable[[float], Awaitable[T]],
        unheard: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """`attempt(seconds)` until it does not raise `BusUnavailable`, for as long as the budget
        lasts. Only for what may happen twice. When nobody listens, `unheard` may raise why."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.budget
        while True:
            try:
                await self.ready(deadline - clock())
                return await attempt(min(ATTEMPT, deadline - clock()))
            except BusUnavailable as error:
                if self._closed_because or clock() + PAUSE >= deadline:
                    raise
                if unheard is not None and isinstance(error, NobodyListens):
                    await unheard()
            await asyncio.sleep(PAUSE)

    async def listen(
        self, subject: str, queue: str, handler: Callable[[Message], None]
    ) -> Callable[[], Awaitable[None]]:
        """Hand what arrives to `handler`, from now on and across reconnects. Returns, once the
        server knows, what ends it."""

        async def receive(raw: Any) -> None:
            handler(Message(raw.subject, raw.data, raw.headers or NO_HEADERS, raw.reply))

        async def stop() -> None:
            self._stops.pop(number, None)
            with contextlib.suppress(errors.Error, OSError):
                await subscription.unsubscribe()

        await self.ready(self.budget)
        with translated(subject):
            subscription = await self._client.subscribe(subject, queue=queue, cb=receive)
        number = next(self._numbers)
        self._stops[number] = stop
        await self.persist(self.settle)
        self.check_permitted("subscribe", subject)
        return stop

    async def ready(self, timeout: float) -> None:
        """Return when there is a connection."""
        if not self._up.is_set() and not self._closed_because:
            try:
                async with asyncio.timeout(timeout):
                    await self._up.wait()
            except TimeoutError as error:
                raise BusUnavailable("connection", f"none for {timeout:.3g} s") from error
        self.check_open()

    def check(self, subject: str, data: bytes, headers: Headers | None = None) -> None:
        """Raise what would be wrong with sending this, before anything is sent."""
        self.check_open()
        size = payload_bytes(data, headers)
        if size > self.max_payload:
            raise PayloadTooLarge(subject, size, self.max_payload)

    def check_open(self) -> None:
        """Raise `BusUnavailable` once the connection is closed for good."""
        if self._closed_because:
            raise BusUnavailable("connection", self._closed_because)

    def check_permitted(self, verb: str, subject: str) -> None:
        """Raise `NotPermitted` if the server has refused this since we first tried. Only of use
        once the server has had its say (see `settle`)."""
        self._denials.check(verb, subject)

    def __repr__(self) -> str:
        state = self._closed_because or ("connected" if self._up.is_set() else "not connected")
        return (
            f"<Connection {self.name}: {state}, {len(self._requests)} requests, "
            f"{len(self._stops)} subscriptions, {self.dropped} dropped>"
        )

    async def _on_error(self, error: Exception) -> None:
        """Say what happened, but not again for each attempt to reconnect. Raises `Misconfigured`
        into the first attempt to connect if there is no use in another one."""
        if not self.max_payload:
            identity.refuse_strangers(error, self._credentials)
        text = str(error) or type(error).__name__
        self._requests.denied(self._denials.note(text))
        if text != self._last_error:
            log.warning("%s: %s", self.name, text)
        self._last_error = text

    async def _on_up(self) -> None:
        log.info("%s: connected again", self.name)
        self._last_error = ""
        self._up.set()

    async def _on_lost(self) -> None:
        self._up.clear()
        identity.trust_anew(self._tls, self._credentials)
        self._requests.lost()
        for call in self.losses:
            call()

    async def _on_closed(self) -> None:
        """Also when the server closed for a reason after which the client does not come back."""
        self._closed_because = self._closed_because or f"it was closed: {self._client.last_error}"
        await self._on_lost()
        self._up.set()  # whoever waits for the connection looks, and finds it closed
        self._closed.set()

    async def closed(self) -> str:
        """Why, once the connection is closed for good."""
        await self._closed.wait()
        return self._closed_because


def _any(message: Message) -> bool:
    return True
