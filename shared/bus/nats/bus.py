"""`Bus` on NATS JetStream.

Everything durable is repeated for as long as the retry budget lasts, so it survives a reconnect or
a change of leader. Each write has an id of its own, so that a repetition which finds its own first
copy knows it."""

import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal

from shared.bus.base import BucketSpec, Entry, Headers, Message, ServiceInfo, Topology
from shared.bus.inbox import Inbox
from shared.bus.nats import api
from shared.bus.nats.connection import Connection, NobodyListens, status
from shared.bus.nats.consumer import PullConsumer
from shared.bus.nats.durability import check_sync
from shared.bus.patterns import check_pattern, check_subject, matches
from shared.bus.service import answer_discovery
from shared.config import Settings
from shared.errors import BusUnavailable, Misconfigured, QueueFull, RevisionConflict
from shared.security.keys import Credentials

PAGE_MESSAGES: Final = 256
PAGE_BYTES: Final = 16 * 1024 * 1024
"""Bounds of one answer to `listing`."""

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
        self._owners: dict[str, str] = {}
        """Subject pattern → the stream that holds it; filled as streams become known."""
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
            await self._write(subject, data, written)
        except api.Refused as refusal:
            if refusal.err_code != api.NOT_STORED:
                raise Misconfigured(f"{subject}: {refusal.description}") from refusal
            stream = await self._owner(subject)
            if refusal.description != api.SUBJECT_TAKEN:
                raise await self._full(stream) from refusal
            if not _same_write(await self._last(stream, subject), written):
                return "duplicate"
        return "stored"

    async def _full(self, stream: str) -> QueueFull:
        reply = await self._api(f"STREAM.INFO.{stream}")
        return QueueFull(stream, reply.config["max_msgs"])

    async def stored(self, subject: str) -> bytes | None:
        check_subject(subject)
        message = await self._last(await self._owner(subject), subject)
        return None if message is None else message.data

    async def listing(self, stream: str, subject: str) -> AsyncIterator[tuple[str, bytes]]:
        check_pattern(subject)
        after, left = 0, 1
        while left:
            messages, after, left = await self._page(stream, subject, after + 1)
            for message in messages:
                yield message.headers["Nats-Subject"], message.data

    async def _page(self, stream: str, pattern: str, start: int) -> tuple[list[Message], int, int]:
        """Messages from sequence `start` on; the last sequence among them; how many follow."""
        body = api.write(
            {"seq": start, "next_by_subj": pattern, "batch": PAGE_MESSAGES, "max_bytes": PAGE_BYTES}
        )
        target = f"{api.API}.DIRECT.GET.{stream}"

        async def attempt(timeout: float) -> list[Message]:
            answers, complete = await self._connection.collect(target, body, None, timeout, _end)
            if not complete:
                raise BusUnavailable(target, "the listing stopped midway")
            if status(answers[0]) == "503":
                raise NobodyListens(target)
            return answers

        *messages, end = await self._connection.persist(
            attempt, lambda: self._stream_exists(stream)
        )
        if status(end) == "404":
            return [], start, 0
        if status(end) != "204":
            raise BusUnavailable(target, f"the listing was refused with status {status(end)}")
        last = int(messages[-1].headers["Nats-Sequence"]) if messages else start
        return messages, last, int(end.headers["Nats-Num-Pending"])

    async def remove(self, stream: str, subject: str) -> None:
        check_subject(subject)
        await self._api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def consumer(self, stream: str, name: str, subject: str, ack_wait: float) -> PullConsumer:
        check_pattern(subject)
        config = api.consumer_config(stream, name, subject, ack_wait)

        async def create() -> None:
            await self._api(f"CONSUMER.CREATE.{stream}.{name}", config)

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
        return (await self._api(f"STREAM.INFO.{stream}", body)).total

    async def get(self, bucket: str, key: str) -> Entry | None:
        message = await self._last(api.bucket_stream(bucket), self._key(bucket, key))
        if message is None or "KV-Operation" in message.headers:  # deleted with the command line
            return None
        return Entry(key, message.data, int(message.headers["Nats-Sequence"]))

    async def create(self, bucket: str, key: str, value: bytes) -> int:
        try:
            return await self.update(bucket, key, value, 0)
        except RevisionConflict:
            message = await self._last(api.bucket_stream(bucket), self._key(bucket, key))
            if message is None or "KV-Operation" not in message.headers:
                raise
            return await self.update(bucket, key, value, int(message.headers["Nats-Sequence"]))

    async def update(self, bucket: str, key: str, value: bytes, revision: int) -> int:
        subject = self._key(bucket, key)
        headers = {api.EXPECTED_REVISION: str(revision), api.MESSAGE_ID: next(self._ids)}
        try:
            return (await self._write(subject, value, headers)).seq
        except api.Refused as refusal:
            if refusal.err_code not in api.WRONG_REVISION:
                raise Misconfigured(f"{subject}: {refusal.description}") from refusal
            held = await self._last(api.bucket_stream(bucket), subject)
            if held is None or not _same_write(held, headers):
                raise RevisionConflict(key, revision) from refusal
            return int(held.headers["Nats-Sequence"])

    async def keys(self, bucket: str) -> Sequence[str]:
        prefix = api.bucket_subject(bucket)
        found: list[str] = []
        while True:
            body = {"subjects_filter": f"{prefix}>", "offset": len(found)}
            reply = await self._api(f"STREAM.INFO.{api.bucket_stream(bucket)}", body)
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
            await self._ensure_stream(api.stream_config(stream, self._replicas))
        for bucket in topology.buckets:
            await self._ensure_bucket(bucket)

    async def _ensure_bucket(self, bucket: BucketSpec) -> None:
        await self._ensure_stream(api.bucket_config(bucket, self._replicas))

    async def _ensure_stream(self, config: dict[str, Any]) -> None:
        """Creating what exists with the same settings changes nothing, so any number may try."""
        name = config["name"]
        try:
            await self._api_refusable(f"STREAM.CREATE.{name}", config)
        except api.Refused as refusal:
            if refusal.err_code != api.CONFIG_DIFFERS:
                raise Misconfigured(f"stream {name}: {refusal.description}") from refusal
            await self._api(f"STREAM.UPDATE.{name}", config)
        self._owners.update(dict.fromkeys(config["subjects"], name))

    async def closed(self) -> str:
        """Why, once the connection is closed for good, by us or by the server."""
        return await self._connection.closed()

    async def close(self) -> None:
        await self._connection.close()
        for inbox in list(self._inboxes):
            inbox.close()

    async def _write(self, subject: str, data: bytes, headers: Headers) -> api.Reply:
        """Publish into the stream that owns `subject`. Raises `api.Refused`."""
        check_subject(subject)
        self._connection.check(subject, data, headers)

        async def attempt(timeout: float) -> api.Reply:
            return api.read(await self._connection.ask(subject, data, timeout, headers))

        return await self._connection.persist(attempt, lambda: self._subject_has_stream(subject))

    async def _last(self, stream: str, subject: str) -> Message | None:
        """The last message on `subject`, as a direct get answers it; in a cluster, where any
        replica may answer that and some are behind, as the stream's leader has it."""
        if self._connection.clustered:
            return await self._last_of_leader(stream, subject)
        target = f"{api.API}.DIRECT.GET.{stream}.{subject}"
        message = await self._connection.persist(
            lambda timeout: self._connection.ask(target, b"", timeout),
            lambda: self._stream_exists(stream),
        )
        return None if status(message) == "404" else message

    async def _last_of_leader(self, stream: str, subject: str) -> Message | None:
        try:
            reply = await self._api_refusable(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except api.Refused as refusal:
            if refusal.err_code == api.NO_MESSAGE:
                return None
            raise Misconfigured(f"{stream}: {refusal.description}") from refusal
        return None if reply.message is None else api.stored_message(reply.message)

    async def _api(self, verb: str, body: dict[str, Any] | None = None) -> api.Reply:
        """Call the JetStream API; a refusal means that something must be set up differently."""
        try:
            return await self._api_refusable(verb, body)
        except api.Refused as refusal:
            raise Misconfigured(f"{verb}: {refusal.description}") from refusal

    async def _api_refusable(self, verb: str, body: dict[str, Any] | None = None) -> api.Reply:
        target, data = f"{api.API}.{verb}", api.write(body) if body else b""

        async def attempt(timeout: float) -> api.Reply:
            return api.read(await self._connection.ask(target, data, timeout))

        return await self._connection.persist(attempt)

    async def _stream_exists(self, stream: str) -> None:
        await self._api(f"STREAM.INFO.{stream}")

    async def _subject_has_stream(self, subject: str) -> str:
        """The stream that holds `subject`; raises `Misconfigured` if none does."""
        reply = await self._api("STREAM.NAMES", {"subject": subject})
        if not reply.streams:
            raise Misconfigured(f"no stream holds {subject}; ensure the topology first")
        return reply.streams[0]

    async def _owner(self, subject: str) -> str:
        for pattern, stream in self._owners.items():
            if matches(pattern, subject):
                return stream
        stream = await self._subject_has_stream(subject)
        reply = await self._api(f"STREAM.INFO.{stream}")
        self._owners.update(dict.fromkeys(reply.config["subjects"], stream))
        return stream

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


def _end(message: Message) -> bool:
    """The last part of an answer in several parts; a refusal has no other."""
    return status(message) != ""
