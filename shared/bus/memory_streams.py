"""The durable half of the in-memory bus: streams, their consumers, and buckets. A clock is a
function that returns seconds."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shared.bus.base import BucketSpec, Entry, Headers, StreamSpec
from shared.bus.patterns import matches, overlap
from shared.errors import Misconfigured, QueueFull, RevisionConflict

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Stored:
    sequence: int
    subject: str
    data: bytes
    headers: Headers
    at: float


@dataclass(slots=True)
class Lease:
    """A message delivered and not acknowledged; delivered again at `due`."""

    message: Stored
    deliveries: int
    due: float


class MemoryStream:
    """At most one message per subject, oldest first."""

    def __init__(self, spec: StreamSpec, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._sequence = 0
        self._messages: dict[str, Stored] = {}
        self._consumers: dict[str, MemoryQueue] = {}

    def owns(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.spec.subjects)

    def store(self, subject: str, data: bytes, headers: Headers) -> Literal["stored", "duplicate"]:
        self.expire()
        if subject in self._messages:
            return "duplicate"
        bound = self.spec.max_messages
        if bound is not None and len(self._messages) >= bound:
            raise QueueFull(self.spec.name, bound)
        self._sequence += 1
        message = Stored(self._sequence, subject, data, headers, self._clock())
        self._messages[subject] = message
        for queue in self._consumers.values():
            queue.arrived(message)
        return "stored"

    def get(self, subject: str) -> bytes | None:
        self.expire()
        message = self._messages.get(subject)
        return None if message is None else message.data

    def matching(self, pattern: str) -> list[Stored]:
        self.expire()
        return [m for m in self._messages.values() if matches(pattern, m.subject)]

    def remove(self, subject: str) -> None:
        message = self._messages.pop(subject, None)
        if message is not None:
            for queue in self._consumers.values():
                queue.gone(message.sequence)

    def acknowledged(self, message: Stored) -> None:
        held = self._messages.get(message.subject)
        if self.spec.work_queue and held is not None and held.sequence == message.sequence:
            self.remove(message.subject)

    def consumer(self, name: str, pattern: str, ack_wait: float) -> "MemoryQueue":
        queue = self._consumers.get(name)
        if queue is not None and queue.pattern == pattern:
            queue.ack_wait = ack_wait
            return queue
        for other_name, other in self._consumers.items():
            if self.spec.work_queue and other_name != name and overlap(other.pattern, pattern):
                raise Misconfigured(
                    f"consumer {name} of {self.spec.name} for {pattern} overlaps with {other_name}"
                )
        queue = MemoryQueue(self, pattern, ack_wait, self._clock)
        for message in self._messages.values():
            queue.arrived(message)
        self._consumers[name] = queue
        return queue

    def expire(self) -> None:
        """Drop what is older than `max_age`."""
        if self.spec.max_age is None:
            return
        oldest = self._clock() - self.spec.max_age
        for message in [m for m in self._messages.values() if m.at <= oldest]:
            self.remove(message.subject)

    def __repr__(self) -> str:
        count, bound = len(self._messages), self.spec.max_messages
        return f"<{self.spec.name}: {count}/{bound} messages {self._consumers!r}>"


class MemoryQueue:
    """What one durable consumer has to deliver."""

    def __init__(self, stream: MemoryStream, pattern: str, ack_wait: float, clock: Clock) -> None:
        self.pattern = pattern
        self.ack_wait = ack_wait
        self._stream = stream
        self._clock = clock
        self._fresh: dict[int, Stored] = {}
        self._leases: dict[int, Lease] = {}
        self._waiting: dict[asyncio.Future[None], int] = {}
        """With the load of whoever waits."""

    def arrived(self, message: Stored) -> None:
        if matches(self.pattern, message.subject):
            self._fresh[message.sequence] = message
            self._wake()

    def gone(self, sequence: int) -> None:
        self._fresh.pop(sequence, None)
        self._leases.pop(sequence, None)

    def take(self, limit: int) -> list[Lease]:
        """Lease up to `limit` messages: those to deliver again first, then new ones."""
        self._stream.expire()
        now = self._clock()
        again = [s for s, lease in self._leases.items() if lease.due <= now][:limit]
        new = list(self._fresh)[: limit - len(again)]
        taken = [self._lease(self._leases[s].message, self._leases[s].deliveries) for s in again]
        return taken + [self._lease(self._fresh.pop(s), 0) for s in new]

    def _lease(self, message: Stored, before: int) -> Lease:
        lease = Lease(message, before + 1, self._clock() + self.ack_wait)
        self._leases[message.sequence] = lease
        return lease

    def next_due(self) -> float | None:
        """When the next redelivery is due, if one is to come."""
        return min((lease.due for lease in self._leases.values()), default=None)

    def acknowledge(self, message: Stored) -> None:
        """An acknowledgement is not fenced: one that comes late removes a later delivery too."""
        if self._leases.pop(message.sequence, None) is not None:
            self._stream.acknowledged(message)

    def postpone(self, message: Stored, delay: float) -> None:
        lease = self._leases.get(message.sequence)
        if lease is not None:
            lease.due = self._clock() + delay
            self._wake()

    def __repr__(self) -> str:
        return (
            f"<{len(self._fresh)} pending, {len(self._leases)} out, {len(self._waiting)} waiting>"
        )

    def waiter(self, load: int) -> asyncio.Future[None]:
        """A future that is done when it is worth looking again."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = load
        future.add_done_callback(lambda done: self._waiting.pop(done, None))
        return future

    def _wake(self) -> None:
        for future in sorted(self._waiting, key=lambda future: self._waiting[future]):
            if not future.done():
                future.set_result(None)


class MemoryBucket:
    """Values with revisions, counted over the whole bucket."""

    def __init__(self, spec: BucketSpec, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._revision = 0
        self._entries: dict[str, tuple[Entry, float]] = {}

    def get(self, key: str) -> Entry | None:
        entry, at = self._entries.get(key, (None, 0.0))
        return entry if self._lives(at) else None

    def keys(self) -> list[str]:
        return [key for key, (_, at) in self._entries.items() if self._lives(at)]

    def write(self, key: str, value: bytes, expected: int) -> int:
        """Write if the key's revision is `expected` (0: it does not exist)."""
        held = self.get(key)
        if (held.revision if held else 0) != expected:
            raise RevisionConflict(key, expected)
        self._revision += 1
        self._entries.pop(key, None)
        self._entries[key] = (Entry(key, value, self._revision), self._clock())
        return self._revision

    def _lives(self, written_at: float) -> bool:
        return self.spec.max_age is None or written_at > self._clock() - self.spec.max_age
