"""Pulling from a durable consumer without losing what arrives late.

A pull request that nobody waits for any more stays on the server, and the next message goes to it.
So each fetch uses a lane: an inbox that lives as long as the consumer. What arrives on a lane when
no fetch owns it is kept, and is the first thing the next fetch returns."""

import asyncio
import contextlib
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

SLICE: Final = 5.0
"""Seconds after which a waiting pull is renewed: a server whose consumer is gone may not say so."""

UNKNOWN_AFTER: Final = 1.5
"""Seconds without an answer after which the server is taken not to know of a delivery."""

EMPTY: Final = ("404", "408")
"""Statuses that end a pull: nothing there, nothing came in time."""

LOST: Final = "lost"
SILENT: Final = "silent"


@dataclass(frozen=True, slots=True)
class PulledMessage:
    """Implements `Delivery`.

    A server that was killed may have forgotten a delivery of its last moments. It does not answer
    to an acknowledgement of what it does not know to be out, and delivers the message again."""

    subject: str
    data: bytes
    headers: Headers
    deliveries: int
    _ack_subject: str
    _consumer: "PullConsumer"

    async def ack(self) -> None:
        connection = self._consumer.connection

        async def attempt(timeout: float) -> None:
            try:
                await connection.ask(self._ack_subject, b"+ACK", min(timeout, UNKNOWN_AFTER))
            except BusUnavailable:
                if not await self._consumer.discard(api.sequence(self._ack_subject), timeout):
                    raise

        await connection.persist(attempt)

    async def extend(self) -> None:
        await self._consumer.connection.publish(self._ack_subject, b"+WPI")

    async def retry(self, delay: float) -> None:
        """When the delivery was forgotten, the message comes again without the delay."""
        verb = b'-NAK {"delay": %d}' % api.nanoseconds(delay) if delay > 0 else b"-NAK"
        connection = self._consumer.connection

        async def attempt(timeout: float) -> None:
            inquiry = (self._ack_subject, verb, None, min(timeout, UNKNOWN_AFTER))
            await connection.collect(*inquiry, last=lambda answer: True)

        await connection.persist(attempt)


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

    def __init__(
        self,
        connection: Connection,
        target: str,
        prefix: str,
        late: Callable[[Message], None],
    ) -> None:
        self._connection = connection
        self._target = target
        self._prefix = prefix
        self._count = 0
        self._pull: _Pull | None = None
        self._late = late

    async def open(self) -> None:
        self._connection.losses.append(self._lost)
        await self._connection.listen(f"{self._prefix}*", "", self._receive)

    async def pull(self, limit: int, wait: float, load: int) -> tuple[list[Message], str]:
        """Messages, and how it ended. Cancelled, it leaves what it had to the next fetch."""
        loop = asyncio.get_running_loop()
        self._count += 1
        pull = _Pull(f"{self._prefix}{self._count}", limit, loop.create_future())
        self._pull = pull
        timer = loop.call_later(wait + GRACE, pull.finish, SILENT)
        try:
            await self._connection.publish(
                self._target, _request(limit, wait, load), reply=pull.reply
            )
            status = await pull.over
            if status == SILENT:
                self._connection.check_permitted("publish", self._target)
        except BaseException:
            for message in pull.messages:
                self._late(message)
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
            self._late(message)

    def _lost(self) -> None:
        if self._pull is not None:
            self._pull.finish(LOST)


def _request(limit: int, wait: float, load: int) -> bytes:
    """With both: at once what is there, else the first to arrive."""
    pull: dict[str, object] = {
        "batch": limit,
        "no_wait": True,
        "group": api.PRIORITY_GROUP,
        "priority": min(load, api.LAST_PRIORITY),
    }
    if wait > 0:
        pull["expires"] = api.nanoseconds(wait)
    return api.write(pull)


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
        self.connection = connection
        self._stream = stream
        self.ack_wait = ack_wait
        self._create = create
        self._idle: list[_Lane] = []
        self._lanes = 0
        self._late: deque[tuple[float, Message]] = deque()

    async def fetch(self, limit: int, wait: float, load: int = 0) -> Sequence[PulledMessage]:
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            messages = await self._attempt(limit, max(0.0, min(until - clock(), SLICE)), load)
            if messages or clock() >= until:
                return [self._delivery(message) for message in messages]

    async def _attempt(self, limit: int, wait: float, load: int) -> list[Message]:
        """What a fetch does once or, while it waits, repeatedly."""
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        kept = self._take_late(limit)
        if len(kept) == limit:
            return kept
        try:
            await self.connection.ready(wait)
            pulled, status = await self._pull(limit - len(kept), 0.0 if kept else wait, load)
            if not pulled and status not in (*EMPTY, LOST):
                await self._create()
            if not pulled:  # a pull may end early, when other pulls wait for what there is
                await asyncio.sleep(max(0.0, min(PAUSE, until - clock())))
        except BusUnavailable:
            self.connection.check_open()
            return kept
        return kept + pulled

    async def _pull(self, limit: int, wait: float, load: int) -> tuple[list[Message], str]:
        lane = self._idle.pop() if self._idle else await self._open_lane()
        try:
            return await lane.pull(limit, wait, load)
        finally:
            self._idle.append(lane)

    async def discard(self, sequence: int, timeout: float) -> bool:
        """Delete the message at `sequence` of a work queue. False where messages outlive their
        acknowledgement, and deleting would be wrong."""
        info = await self._inquire(f"STREAM.INFO.{self._stream}", b"", timeout)
        if info.config["retention"] != "workqueue":
            return False
        body = api.write({"seq": sequence, "no_erase": True})
        with contextlib.suppress(api.Refused):  # somebody else has deleted it
            await self._inquire(f"STREAM.MSG.DELETE.{self._stream}", body, timeout)
        return True

    async def _inquire(self, verb: str, body: bytes, timeout: float) -> api.Reply:
        return api.read(await self.connection.ask(f"{api.API}.{verb}", body, timeout))

    def __repr__(self) -> str:
        return (
            f"<PullConsumer {self._stream}/{self.name}: {self._lanes} lanes, "
            f"{len(self._idle)} idle, {len(self._late)} late>"
        )

    async def _open_lane(self) -> _Lane:
        self._lanes += 1
        target = f"{api.API}.CONSUMER.MSG.NEXT.{self._stream}.{self.name}"
        prefix = f"{self.connection.inbox}.c.{self._stream}.{self.name}.{id(self)}.{self._lanes}."
        lane = _Lane(self.connection, target, prefix, self._keep)
        await lane.open()
        return lane

    def _keep(self, message: Message) -> None:
        self._late.append((asyncio.get_running_loop().time(), message))

    def _take_late(self, limit: int) -> list[Message]:
        """Late arrivals, but for those that the server gives to somebody else by now."""
        oldest = asyncio.get_running_loop().time() - self.ack_wait
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
            self,
        )
