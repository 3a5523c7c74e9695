"""Pulling from a durable consumer without losing what arrives late.

A pull request that nobody waits for any more stays on the server, and the next message goes to it.
So each fetch uses a lane: an inbox that lives as long as the consumer. What arrives on a lane when
no fetch owns it is kept, and is the first thing the next fetch returns."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.bus.base import Headers, Message
from shared.bus.nats import api
from shared.bus.nats.connection import Connection
from shared.errors import BusUnavailable

GRACE: Final = 1.0
"""Seconds beyond a fetch's own wait for the server to say that it is over."""

PAUSE: Final = 0.05
"""Seconds before a pull that the server turned away is repeated."""

EMPTY: Final = ("404", "408")
"""Statuses that end a pull: nothing there, nothing came in time."""

LOST: Final = "lost"
SILENT: Final = "silent"


@dataclass(frozen=True, slots=True)
class PulledMessage:
    """Implements `Delivery`."""

    subject: str
    data: bytes
    headers: Headers
    deliveries: int
    _ack_subject: str
    _connection: Connection

    async def ack(self) -> None:
        await self._confirmed(b"+ACK")

    async def extend(self) -> None:
        self._connection.check(self.subject, b"")
        await self._connection.publish(self._ack_subject, b"+WPI")

    async def retry(self, delay: float) -> None:
        await self._confirmed(b'-NAK {"delay": %d}' % api.nanoseconds(delay) if delay else b"-NAK")

    async def _confirmed(self, verb: bytes) -> None:
        connection = self._connection
        await connection.persist(lambda timeout: connection.ask(self._ack_subject, verb, timeout))


@dataclass(slots=True)
class _Pull:
    """One request for messages."""

    reply: str
    limit: int
    over: asyncio.Future[str]
    messages: list[Message] = field(default_factory=list)

    def add(self, message: Message) -> None:
        self.messages.append(message)
        if len(self.messages) >= self.limit:
            self.finish("full")

    def finish(self, status: str) -> None:
        if not self.over.done():
            self.over.set_result(status)


class _Lane:
    """An inbox with at most one pull under way."""

    def __init__(self, connection: Connection, target: str, prefix: str) -> None:
        self._connection = connection
        self._target = target
        self._prefix = prefix
        self._count = 0
        self._pull: _Pull | None = None
        self.late: Callable[[Message], None] = lambda message: None

    async def open(self) -> None:
        self._connection.losses.append(self._lost)
        await self._connection.listen(f"{self._prefix}*", "", self._receive)

    async def pull(self, limit: int, wait: float) -> tuple[list[Message], str]:
        """Messages, and how it ended. Cancelled, it leaves what it had to the next fetch."""
        loop = asyncio.get_running_loop()
        self._count += 1
        pull = _Pull(f"{self._prefix}{self._count}", limit, loop.create_future())
        self._pull = pull
        timer = loop.call_later(wait + GRACE, pull.finish, SILENT)
        try:
            await self._connection.publish(self._target, _request(limit, wait), reply=pull.reply)
            status = await pull.over
        except BaseException:
            for message in pull.messages:
                self.late(message)
            raise
        finally:
            timer.cancel()
            self._pull = None
        return pull.messages, status

    def _receive(self, message: Message) -> None:
        pull = self._pull
        if message.subject.startswith(self._prefix):  # not a message, but word about a pull
            if pull is not None and message.subject == pull.reply:
                pull.finish(message.headers.get("Status", ""))
        elif pull is not None:
            pull.add(message)
        else:
            self.late(message)

    def _lost(self) -> None:
        if self._pull is not None:
            self._pull.finish(LOST)


def _request(limit: int, wait: float) -> bytes:
    """With both: at once what is there, else the first to arrive."""
    if wait <= 0:
        return b'{"batch":%d,"no_wait":true}' % limit
    return b'{"batch":%d,"no_wait":true,"expires":%d}' % (limit, api.nanoseconds(wait))


class PullConsumer:
    """Implements `Consumer`. Every fetch under way has a lane of its own."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        name: str,
        ack_wait: float,
        create: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self._connection = connection
        self._stream = stream
        self._ack_wait = ack_wait
        self._create = create
        self._idle: list[_Lane] = []
        self._lanes = 0
        self._late: deque[tuple[float, Message]] = deque()

    async def fetch(self, limit: int, wait: float) -> Sequence[PulledMessage]:
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        lane = self._idle.pop() if self._idle else await self._open_lane()
        try:
            while True:
                left = max(0.0, until - clock())
                messages = await self._attempt(lane, limit, left)
                if messages or left <= 0:
                    return [self._delivery(message) for message in messages]
        finally:
            self._idle.append(lane)

    async def _attempt(self, lane: _Lane, limit: int, left: float) -> list[Message]:
        """One pull. It returns without messages before `left` is over only after a pause."""
        kept = self._take_late(limit)
        if len(kept) == limit:
            return kept
        try:
            await self._connection.ready(left)
        except BusUnavailable:
            self._connection.check(self.name, b"")
            return kept
        pulled, status = await lane.pull(limit - len(kept), 0.0 if kept else left)
        messages = kept + pulled
        if not messages and status not in (*EMPTY, LOST, SILENT):
            await self._create_again()
        if not messages and status != SILENT and left > PAUSE:
            await asyncio.sleep(PAUSE if status != LOST else 0)
        return messages

    async def _create_again(self) -> None:
        """The server says that the consumer is gone, or is moving; make sure that it exists."""
        try:
            await self._create()
        except BusUnavailable:
            self._connection.check(self.name, b"")

    async def _open_lane(self) -> _Lane:
        self._lanes += 1
        target = f"{api.API}.CONSUMER.MSG.NEXT.{self._stream}.{self.name}"
        prefix = f"{self._connection.inbox}.c.{self._stream}.{self.name}.{id(self)}.{self._lanes}."
        lane = _Lane(self._connection, target, prefix)
        lane.late = self._keep
        await lane.open()
        return lane

    def _keep(self, message: Message) -> None:
        self._late.append((asyncio.get_running_loop().time(), message))

    def _take_late(self, limit: int) -> list[Message]:
        """Late arrivals, but for those that the server gives to somebody else by now."""
        oldest = asyncio.get_running_loop().time() - self._ack_wait
        taken: list[Message] = []
        while self._late and len(taken) < limit:
            at, message = self._late.popleft()
            if at > oldest:
                taken.append(message)
        return taken

    def _delivery(self, message: Message) -> PulledMessage:
        return PulledMessage(
            message.subject,
            message.data,
            api.own_headers(message.headers),
            api.deliveries(message.reply),
            message.reply,
            self._connection,
        )

    async def pending(self) -> int:
        subject = f"{api.API}.CONSUMER.INFO.{self._stream}.{self.name}"
        connection = self._connection

        async def attempt(timeout: float) -> api.Reply:
            return api.read(await connection.ask(subject, b"", timeout))

        return (await connection.persist(attempt)).num_pending
