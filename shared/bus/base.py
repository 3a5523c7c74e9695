"""What Darkroom needs of a message bus. `nats.py` and `memory.py` implement it, and one contract
suite (`tests/contracts/test_bus_*.py`) holds both to these docstrings.

Durable: streams with one message per subject, pull consumers with redelivery, key-value buckets
with compare-and-set. Not durable: core publish, subscribe, request. All payloads are opaque bytes.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream that holds at most one message per subject.

    `work_queue`: a message leaves when acknowledged; otherwise it stays `max_age` seconds.
    At `max_messages` a publish is refused with `QueueFull` (None: no bound but the disk)."""

    name: str
    subjects: tuple[str, ...]
    work_queue: bool
    max_age: float | None = None
    max_messages: int | None = None


@dataclass(frozen=True, slots=True)
class BucketSpec:
    name: str
    max_age: float | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """The streams and buckets that must exist before anything talks."""

    streams: tuple[StreamSpec, ...]
    buckets: tuple[BucketSpec, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """A received core message. `reply` is where an answer goes, empty if none is wanted."""

    subject: str
    data: bytes
    headers: Headers
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in a bucket, and the revision to compare with when writing it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """How a service shows itself to `$SRV.PING/INFO/STATS`. `version` is semantic."""

    name: str
    version: str
    description: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Delivery(Protocol):
    """A message pulled from a work queue; it comes again `ack_wait` after the last `extend`,
    to whoever pulls next, until it is acknowledged."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def deliveries(self) -> int:
        """1 the first time."""
        ...

    async def ack(self) -> None:
        """Remove it for good, and return once the server has it on record."""
        ...

    async def extend(self) -> None:
        """Still at work: start `ack_wait` anew."""
        ...

    async def retry(self, delay: float) -> None:
        """Give it back, to be delivered again after `delay` seconds."""
        ...


class Consumer(Protocol):
    """A durable pull consumer."""

    async def fetch(self, limit: int, wait: float, load: int = 0) -> Sequence[Delivery]:
        """Up to `limit` messages; at once what is there, else the first to arrive within `wait`
        seconds, else none. `wait=0` only looks. Of several that wait, the one with the least `load`
        is served first (what is above 9 counts as 9), then who has waited longest. Never raises on
        silence. Do not cancel a running fetch: what it had pulled would come back only after
        `ack_wait`."""
        ...


class Subscription(Protocol):
    """An async iterator over received messages."""

    def __aiter__(self) -> AsyncIterator[Message]: ...


class Bus(Protocol):
    max_payload: int
    """Bytes; a larger message raises `PayloadTooLarge` wherever it is sent."""

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> None:
        """At most once, to whoever listens now."""
        ...

    async def request(
        self, subject: str, data: bytes, timeout: float, headers: Headers | None = None
    ) -> Message:
        """One answer. Raises `BusUnavailable` if nobody listens or nobody answers in time."""
        ...

    async def gather(self, subject: str, data: bytes, timeout: float) -> Sequence[Message]:
        """Every answer that arrives within `timeout` seconds (used for discovery)."""
        ...

    def subscribe(self, subject: str, queue: str = "") -> AbstractAsyncContextManager[Subscription]:
        """Listen while the context is open; with `queue`, each message goes to one member.
        Listening has begun, on the server too, when the context is entered."""
        ...

    async def store(
        self, subject: str, data: bytes, headers: Headers | None = None
    ) -> Literal["stored", "duplicate"]:
        """Publish into the stream that owns `subject`, durably. "duplicate": the subject already
        holds a message, which stays. Raises `QueueFull` at the stream's bound, and `Misconfigured`
        if no stream owns `subject`."""
        ...

    async def stored(self, subject: str) -> bytes | None:
        """The message stored on exactly `subject`, if any."""
        ...

    def listing(self, stream: str, subject: str) -> AsyncIterator[tuple[str, bytes]]:
        """All (subject, data) stored in `stream` on subjects matching `subject`, oldest first."""
        ...

    async def remove(self, stream: str, subject: str) -> None:
        """Delete what `stream` holds on exactly `subject`."""
        ...

    async def consumer(self, stream: str, name: str, subject: str, ack_wait: float) -> Consumer:
        """The durable consumer `name` of `stream` for `subject`, made if absent. Raises
        `Misconfigured` if the stream is a work queue and another consumer's subjects overlap."""
        ...

    async def depth(self, stream: str, subject: str) -> int:
        """Messages in `stream` on subjects matching `subject`."""
        ...

    async def get(self, bucket: str, key: str) -> Entry | None: ...

    async def create(self, bucket: str, key: str, value: bytes) -> int:
        """Write a new key, and return its revision. Raises `RevisionConflict` if it exists."""
        ...

    async def update(self, bucket: str, key: str, value: bytes, revision: int) -> int:
        """Compare-and-set: returns the new revision, or raises `RevisionConflict`."""
        ...

    async def keys(self, bucket: str) -> Sequence[str]: ...

    def service(
        self, info: ServiceInfo, stats: Callable[[], Mapping[str, object]]
    ) -> AbstractAsyncContextManager[str]:
        """Answer PING, INFO and STATS (with `stats()` as data) while the context is open.
        Yields the instance id."""
        ...

    async def ensure(self, topology: Topology) -> None:
        """Create what is missing and reconcile what differs. Safe to call from everywhere."""
        ...

    async def close(self) -> None:
        """Flush what was published, then leave. Afterwards every call raises `BusUnavailable`."""
        ...
