"""The bus inside one event loop: what tests use where the real one does not matter.

    broker = MemoryBroker()
    gateway, planner = broker.connect("gateway"), broker.connect("planner")

It keeps every promise of `shared.bus.base` but durability: what it holds ends with the process. Its
time is the event loop's clock."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal

from shared.bus.base import Entry, Headers, Message, ServiceInfo, StreamSpec, Topology
from shared.bus.inbox import Inbox
from shared.bus.memory_streams import Lease, MemoryBucket, MemoryQueue, MemoryStream, Stored
from shared.bus.patterns import check_pattern, check_subject, matches, overlap
from shared.bus.service import answer_discovery
from shared.errors import BusUnavailable, Misconfigured, PayloadTooLarge

MAX_PAYLOAD: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    pattern: str
    queue: str
    inbox: Inbox


class MemoryBroker:
    """What several `MemoryBus` handles share."""

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self.max_payload = max_payload
        self.streams: dict[str, MemoryStream] = {}
        self.buckets: dict[str, MemoryBucket] = {}
        self._listeners: dict[_Listener, None] = {}
        self._turns: Counter[str] = Counter()
        self._inboxes = itertools.count()

    def connect(self, name: str) -> "MemoryBus":
        return MemoryBus(self, name)

    def __repr__(self) -> str:
        return (
            f"<MemoryBroker {list(self.streams.values())!r} {list(self.buckets)!r} "
            f"{len(self._listeners)} listeners>"
        )

    def listen(self, pattern: str, queue: str, inbox: Inbox) -> Callable[[], None]:
        """Deliver to `inbox` from now on; call what is returned to stop."""
        listener = _Listener(pattern, queue, inbox)
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    def new_inbox(self) -> str:
        return f"_INBOX.{next(self._inboxes)}"

    def route(self, message: Message) -> int:
        """Deliver to every plain listener and to one of each queue group, in turn. Returns how
        many got it."""
        groups: dict[str, list[_Listener]] = {}
        receivers: list[_Listener] = []
        for listener in self._listeners:
            if matches(listener.pattern, message.subject):
                members = groups.setdefault(listener.queue, []) if listener.queue else receivers
                members.append(listener)
        for queue, members in groups.items():
            receivers.append(members[self._turns[queue] % len(members)])
            self._turns[queue] += 1
        for receiver in receivers:
            receiver.inbox.offer(message)
        return len(receivers)

    def stream(self, name: str) -> MemoryStream:
        if name not in self.streams:
            raise Misconfigured(f"there is no stream {name}; ensure the topology first")
        return self.streams[name]

    def owner(self, subject: str) -> MemoryStream:
        for stream in self.streams.values():
            if stream.owns(subject):
                return stream
        raise Misconfigured(f"no stream holds {subject}; ensure the topology first")

    def bucket(self, name: str) -> MemoryBucket:
        if name not in self.buckets:
            raise Misconfigured(f"there is no bucket {name}; ensure the topology first")
        return self.buckets[name]

    def ensure(self, topology: Topology) -> None:
        clock = asyncio.get_running_loop().time
        for spec in topology.streams:
            self._check(spec)
            held = self.streams.setdefault(spec.name, MemoryStream(spec, clock))
            held.spec = spec
        for bucket in topology.buckets:
            self.buckets.setdefault(bucket.name, MemoryBucket(bucket, clock)).spec = bucket

    def _check(self, spec: StreamSpec) -> None:
        for other in (stream.spec for stream in self.streams.values()):
            if other.name == spec.name:
                if other.work_queue != spec.work_queue:
                    raise Misconfigured(f"stream {spec.name} cannot become or cease a work queue")
            elif any(overlap(a, b) for a in spec.subjects for b in other.subjects):
                raise Misconfigured(f"subjects of {spec.name} overlap with those of {other.name}")


class MemoryBus:
    """One client's handle on a `MemoryBroker`; implements `Bus`."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.name = name
        self.max_payload = broker.max_payload
        self._broker = broker
        self._closed = False
        self._inboxes: set[Inbox] = set()
        self._waiting: set[asyncio.Future[None]] = set()

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> None:
        await self._begin(subject, data)
        self._broker.route(Message(subject, data, dict(headers or {})))

    async def request(
        self, subject: str, data: bytes, timeout: float, headers: Headers | None = None
    ) -> Message:
        await self._begin(subject, data)
        async with self._asked(subject, data, headers) as (inbox, listeners):
            if not listeners:
                raise BusUnavailable(subject, "nobody listens")
            try:
                async with asyncio.timeout(timeout):
                    return await anext(inbox)
            except TimeoutError as error:
                raise BusUnavailable(subject, f"no answer within {timeout} s") from error
            except StopAsyncIteration as error:
                raise BusUnavailable(subject, "the bus was closed") from error

    async def gather(self, subject: str, data: bytes, timeout: float) -> Sequence[Message]:
        await self._begin(subject, data)
        answers: list[Message] = []
        async with self._asked(subject, data, None) as (inbox, listeners):
            if listeners:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        async for answer in inbox:
                            answers.append(answer)  # noqa: PERF401 (a timeout keeps these)
        return answers

    @contextlib.asynccontextmanager
    async def _asked(
        self, subject: str, data: bytes, headers: Headers | None
    ) -> AsyncIterator[tuple[Inbox, int]]:
        """Send with a fresh reply subject; gives the inbox behind it, and how many were asked."""
        reply = self._broker.new_inbox()
        async with self._listening(reply, "") as inbox:
            yield inbox, self._broker.route(Message(subject, data, dict(headers or {}), reply))

    @contextlib.asynccontextmanager
    async def _listening(self, pattern: str, queue: str) -> AsyncIterator[Inbox]:
        inbox = Inbox(pattern)
        stop = self._broker.listen(pattern, queue, inbox)
        self._inboxes.add(inbox)
        try:
            yield inbox
        finally:
            stop()
            inbox.close()
            self._inboxes.discard(inbox)

    @contextlib.asynccontextmanager
    async def subscribe(self, subject: str, queue: str = "") -> AsyncIterator[Inbox]:
        check_pattern(subject)
        await self._begin()
        async with self._listening(subject, queue) as inbox:
            yield inbox

    async def store(
        self, subject: str, data: bytes, headers: Headers | None = None
    ) -> Literal["stored", "duplicate"]:
        await self._begin(subject, data)
        return self._broker.owner(subject).store(subject, data, dict(headers or {}))

    async def stored(self, subject: str) -> bytes | None:
        await self._begin(subject)
        return self._broker.owner(subject).get(subject)

    async def listing(self, stream: str, subject: str) -> AsyncIterator[tuple[str, bytes]]:
        await self._begin()
        for message in self._broker.stream(stream).matching(subject):
            yield message.subject, message.data

    async def remove(self, stream: str, subject: str) -> None:
        await self._begin(subject)
        self._broker.stream(stream).remove(subject)

    async def consumer(
        self, stream: str, name: str, subject: str, ack_wait: float
    ) -> "MemoryConsumer":
        await self._begin()
        check_pattern(subject)
        queue = self._broker.stream(stream).consumer(name, subject, ack_wait)
        return MemoryConsumer(self, name, queue)

    async def depth(self, stream: str, subject: str) -> int:
        await self._begin()
        return len(self._broker.stream(stream).matching(subject))

    async def get(self, bucket: str, key: str) -> Entry | None:
        await self._begin(key)
        return self._broker.bucket(bucket).get(key)

    async def create(self, bucket: str, key: str, value: bytes) -> int:
        await self._begin(key, value)
        return self._broker.bucket(bucket).write(key, value, 0)

    async def update(self, bucket: str, key: str, value: bytes, revision: int) -> int:
        await self._begin(key, value)
        return self._broker.bucket(bucket).write(key, value, revision)

    async def keys(self, bucket: str) -> Sequence[str]:
        await self._begin()
        return self._broker.bucket(bucket).keys()

    def service(
        self, info: ServiceInfo, stats: Callable[[], Mapping[str, object]]
    ) -> AbstractAsyncContextManager[str]:
        return answer_discovery(self, info, stats)

    async def ensure(self, topology: Topology) -> None:
        await self._begin()
        self._broker.ensure(topology)

    async def close(self) -> None:
        self._closed = True
        for inbox in self._inboxes:
            inbox.close()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _begin(self, subject: str = "any", data: bytes = b"") -> None:
        """What every call starts with. It yields to the loop once, as the real bus does, so that
        callers interleave here where they would there."""
        await asyncio.sleep(0)
        if self._closed:
            raise BusUnavailable(subject, f"the bus of {self.name} was closed")
        check_subject(subject)
        if len(data) > self.max_payload:
            raise PayloadTooLarge(subject, len(data), self.max_payload)

    async def _change(self, queue: MemoryQueue, until: float, load: int) -> None:
        """Return when `queue` may have something to deliver, at loop time `until`, or on close."""
        due = queue.next_due()
        waiter = queue.waiter(load)
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout_at(until if due is None else min(until, due)):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiter)


@dataclass(frozen=True, slots=True)
class MemoryConsumer:
    """One handle on a durable consumer; implements `Consumer`."""

    _bus: MemoryBus
    name: str
    _queue: MemoryQueue

    async def fetch(self, limit: int, wait: float, load: int = 0) -> Sequence["MemoryDelivery"]:
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            await self._bus._begin()
            taken = self._queue.take(limit)
            if taken or clock() >= until:
                return [self._delivery(lease) for lease in taken]
            await self._bus._change(self._queue, until, load)

    def _delivery(self, lease: Lease) -> "MemoryDelivery":
        message = lease.message
        return MemoryDelivery(
            message.subject,
            message.data,
            message.headers,
            lease.deliveries,
            self._bus,
            self._queue,
            message,
        )


@dataclass(frozen=True, slots=True)
class MemoryDelivery:
    """Implements `Delivery`."""

    subject: str
    data: bytes
    headers: Headers
    deliveries: int
    _bus: MemoryBus
    _queue: MemoryQueue
    _message: Stored

    async def ack(self) -> None:
        await self._bus._begin()
        self._queue.acknowledge(self._message)

    async def extend(self) -> None:
        await self._bus._begin()
        self._queue.postpone(self._message, self._queue.ack_wait)

    async def retry(self, delay: float) -> None:
        await self._bus._begin()
        self._queue.postpone(self._message, delay)
