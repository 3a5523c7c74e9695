"""`Bus` on NATS JetStream.

Everything durable is repeated for as long as the retry budget lasts, so it survives a reconnect or
a change of leader. Each write has an id of its own, so that a repetition which finds its own first
copy knows it."""

import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal

from shared.bus.base import Entry, Headers, Message, ServiceInfo, Topology
from shared.bus.inbox import Inbox
from shared.bus.nats import api
from shared.bus.nats.connection import Connection
from shared.bus.nats.consumer import PullConsumer
from shared.bus.nats.durability import check_sync
from shared.bus.nats.jetstream import JetStream
from shared.bus.nats.translation import status
from shared.bus.patterns import check_pattern, check_subject
from shared.bus.service import answer_discovery
from shared.config import Settings
from shared.errors import Misconfigured, RevisionConflict
from shared.security.keys import Credentials

KEYS_PAGE: Final = 100_000
"""Keys per answer, as the server fixes it."""


async def connect(
    url: str,
    name: str,
    budget: float = 20.0,
    replicas: int = 1,
    credentials: Credentials | None = None,
    synced: bool = False,
) -> "NatsBus":
    """Connect to the server (or servers, comma-separated) at `url`. `budget` is how many seconds a
    durable call may go on trying; `replicas` is how many servers keep each stream and bucket.
    Without `credentials`, those that DARKROOM_CREDENTIALS names are used, if any. `synced`:
    the caller knows that the server syncs what it acknowledges; otherwise `ensure` looks into it.

    Raises `BusUnavailable` when there is no connection within the budget, and `Misconfigured` when
    the server takes no such credentials, or is older than 2.14. What they do not permit raises
    `NotPermitted`, later."""
    identity = Credentials.from_env() if credentials is None else credentials
    known = None if identity is None or identity.anonymous else identity
    connection = Connection(name, budget, known)
    await connection.open(url)
    return NatsBus(connection, replicas, synced)


class NatsBus:
    """Implements `Bus`."""

    def __init__(self, connection: Connection, replicas: int, synced: bool) -> None:
        self.max_payload = connection.max_payload
        self._connection = connection
        self._replicas = replicas
        self._synced = synced
        self._streams = JetStream(connection)
        self._ids = (f"{secrets.token_hex(6)}.{n}" for n in itertools.count())
        self._inboxes: set[Inbox] = set()
        self._consumers: dict[tuple[str, str], PullConsumer] = {}

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> None:
        check_subject(subject)
        await self._connection.publish(subject, data, headers)

    async def request(
        self, subject: str, data: bytes, timeout: float, headers: Headers | None = None
    ) -> Message:
        check_subject(subject)
        return await self._connection.ask(subject, data, timeout, headers)

    async def gather(self, subject: str, data: bytes, timeout: float) -> Sequence[Message]:
        check_subject(subject)
        answers, nobody = await self._connection.collect(subject, data, None, timeout, _nobody)
        return [] if nobody else answers

    @contextlib.asynccontextmanager
    async def subscribe(self, subject: str, queue: str = "") -> AsyncIterator[Inbox]:
        check_pattern(subject)
        inbox = Inbox(subject)
        stop = await self._connection.listen(subject, queue, inbox.offer)
        self._inboxes.add(inbox)
        try:
            yield inbox
        finally:
            self._inboxes.discard(inbox)
            inbox.close()
            await stop()

    async def store(
        self, subject: str, data: bytes, headers: Headers | None = None
    ) -> Literal["stored", "duplicate"]:
        written = {**(headers or {}), api.MESSAGE_ID: next(self._ids)}
        try:
            await self._streams.write(subject, data, written)
        except api.Refused as refusal:
            if refusal.err_code != api.NOT_STORED:
                raise Misconfigured(f"{subject}: {refusal.description}") from refusal
            stream = await self._streams.owner(subject)
            if refusal.description != api.SUBJECT_TAKEN:
                raise await self._streams.full(stream) from refusal
            if not _same_write(await self._streams.last(stream, subject), written):
                return "duplicate"
        return "stored"

    async def stored(self, subject: str) -> bytes | None:
        check_subject(subject)
        message = await self._streams.last(await self._streams.owner(subject), subject)
        return None if message is None else message.data

    async def listing(self, stream: str, subject: str) -> AsyncIterator[tuple[str, bytes]]:
        check_pattern(subject)
        after, left = 0, 1
        while left:
            messages, after, left = await self._streams.page(stream, subject, after + 1)
            for message in messages:
                yield message.headers["Nats-Subject"], message.data

    async def remove(self, stream: str, subject: str) -> None:
        check_subject(subject)
        await self._streams.call(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def consumer(self, stream: str, name: str, subject: str, ack_wait: float) -> PullConsumer:
        check_pattern(subject)
        config = api.consumer_config(stream, name, subject, ack_wait)

        async def create() -> None:
            await self._streams.call(f"CONSUMER.CREATE.{stream}.{name}", config)

        await create()
        held = self._consumers.get((stream, name))
        if held is None or held.ack_wait != ack_wait:
            held = PullConsumer(self._connection, stream, name, ack_wait, create)
            self._consumers[stream, name] = held
        return held

    async def depth(self, stream: str, subject: str) -> int:
        check_pattern(subject)
        # The answer counts all subjects, and each holds one message; none of them is wanted.
        body = {"subjects_filter": subject, "offset": KEYS_PAGE * KEYS_PAGE}
        return (await self._streams.call(f"STREAM.INFO.{stream}", body)).total

    async def get(self, bucket: str, key: str) -> Entry | None:
        message = await self._streams.last(api.bucket_stream(bucket), self._key(bucket, key))
        if message is None or "KV-Operation" in message.headers:  # deleted with the command line
            return None
        return Entry(key, message.data, int(message.headers["Nats-Sequence"]))

    async def create(self, bucket: str, key: str, value: bytes) -> int:
        try:
            return await self.update(bucket, key, value, 0)
        except RevisionConflict:
            message = await self._streams.last(api.bucket_stream(bucket), self._key(bucket, key))
            if message is None or "KV-Operation" not in message.headers:
                raise
            return await self.update(bucket, key, value, int(message.headers["Nats-Sequence"]))

    async def update(self, bucket: str, key: str, value: bytes, revision: int) -> int:
        subject = self._key(bucket, key)
        headers = {api.EXPECTED_REVISION: str(revision), api.MESSAGE_ID: next(self._ids)}
        try:
            return (await self._streams.write(subject, value, headers)).seq
        except api.Refused as refusal:
            if refusal.err_code not in api.WRONG_REVISION:
                raise Misconfigured(f"{subject}: {refusal.description}") from refusal
            held = await self._streams.last(api.bucket_stream(bucket), subject)
            if held is None or not _same_write(held, headers):
                raise RevisionConflict(key, revision) from refusal
            return int(held.headers["Nats-Sequence"])

    async def keys(self, bucket: str) -> Sequence[str]:
        prefix = api.bucket_subject(bucket)
        found: list[str] = []
        while True:
            body = {"subjects_filter": f"{prefix}>", "offset": len(found)}
            reply = await self._streams.call(f"STREAM.INFO.{api.bucket_stream(bucket)}", body)
            page = reply.state.get("subjects") or {}
            found += [subject.removeprefix(prefix) for subject in page]
            if not page or len(found) >= reply.total:
                return found

    def service(
        self, info: ServiceInfo, stats: Callable[[], Mapping[str, object]]
    ) -> AbstractAsyncContextManager[str]:
        return answer_discovery(self, info, stats)

    async def ensure(self, topology: Topology) -> None:
        """Also raises `Misconfigured` if what is stored there is known not to be safe."""
        if not self._synced:
            settings = Settings.from_env()
            await check_sync(settings.nats_monitor, settings.nats_sync, self._replicas)
        for stream in topology.streams:
            await self._streams.ensure(api.stream_config(stream, self._replicas))
        for bucket in topology.buckets:
            await self._streams.ensure(api.bucket_config(bucket, self._replicas))

    async def closed(self) -> str:
        """Why, once the connection is closed for good, by us or by the server."""
        return await self._connection.closed()

    async def close(self) -> None:
        await self._connection.close()
        for inbox in list(self._inboxes):
            inbox.close()

    def __repr__(self) -> str:
        return f"<NatsBus {self._connection!r} {list(self._consumers.values())!r}>"

    @staticmethod
    def _key(bucket: str, key: str) -> str:
        subject = f"{api.bucket_subject(bucket)}{key}"
        check_subject(subject)
        return subject


def _same_write(message: Message | None, headers: Headers) -> bool:
    """Whether `message` is what an earlier attempt with `headers` has written."""
    return message is not None and message.headers.get(api.MESSAGE_ID) == headers[api.MESSAGE_ID]


def _nobody(message: Message) -> bool:
    return status(message) == "503"
