"""JetStream's streams over one connection: written, read and asked about, with retries."""

from typing import Any, Final

from shared.bus.base import Headers, Message
from shared.bus.nats import api
from shared.bus.nats.connection import Connection
from shared.bus.nats.translation import NobodyListens, status
from shared.bus.patterns import check_subject, matches
from shared.errors import BusUnavailable, Misconfigured, QueueFull

PAGE_MESSAGES: Final = 256
PAGE_BYTES: Final = 16 * 1024 * 1024
"""Bounds of one answer to `JetStream.page`."""


class JetStream:
    """Reads and writes messages of streams, and calls the API that is about streams."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._owners: dict[str, str] = {}
        """Subject pattern → the stream that holds it; filled as streams become known."""

    async def ensure(self, config: dict[str, Any]) -> None:
        """Creating what exists with the same settings changes nothing, so any number may try."""
        name = config["name"]
        try:
            await self.call_refusable(f"STREAM.CREATE.{name}", config)
        except api.Refused as refusal:
            if refusal.err_code != api.CONFIG_DIFFERS:
                raise Misconfigured(f"stream {name}: {refusal.description}") from refusal
            await self.call(f"STREAM.UPDATE.{name}", config)
        self._owners.update(dict.fromkeys(config["subjects"], name))

    async def write(self, subject: str, data: bytes, headers: Headers) -> api.Reply:
        """Publish into the stream that owns `subject`. Raises `api.Refused`."""
        check_subject(subject)
        self._connection.check(subject, data, headers)

        async def attempt(timeout: float) -> api.Reply:
            return api.read(await self._connection.ask(subject, data, timeout, headers))

        return await self._connection.persist(attempt, lambda: self._subject_has_stream(subject))

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message on `subject`, as a direct get answers it; in a cluster, where any
        replica may answer that and some are behind, as the stream's leader has it."""
        if self._connection.clustered:
            return await self._last_of_leader(stream, subject)
        target = f"{api.API}.DIRECT.GET.{stream}.{subject}"
        message = await self._connection.persist(
            lambda timeout: self._connection.ask(target, b"", timeout),
            lambda: self.exists(stream),
        )
        return None if status(message) == "404" else message

    async def _last_of_leader(self, stream: str, subject: str) -> Message | None:
        try:
            reply = await self.call_refusable(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except api.Refused as refusal:
            if refusal.err_code == api.NO_MESSAGE:
                return None
            raise Misconfigured(f"{stream}: {refusal.description}") from refusal
        return None if reply.message is None else api.stored_message(reply.message)

    async def call(self, verb: str, body: dict[str, Any] | None = None) -> api.Reply:
        """Call the JetStream API; a refusal means that something must be set up differently."""
        try:
            return await self.call_refusable(verb, body)
        except api.Refused as refusal:
            raise Misconfigured(f"{verb}: {refusal.description}") from refusal

    async def call_refusable(self, verb: str, body: dict[str, Any] | None = None) -> api.Reply:
        """The same for a refusal that has a meaning: raises `api.Refused`."""
        target, data = f"{api.API}.{verb}", api.write(body) if body else b""

        async def attempt(timeout: float) -> api.Reply:
            return api.read(await self._connection.ask(target, data, timeout))

        return await self._connection.persist(attempt)

    async def exists(self, stream: str) -> None:
        """Raises `Misconfigured` if it does not."""
        await self.call(f"STREAM.INFO.{stream}")

    async def _subject_has_stream(self, subject: str) -> str:
        """The stream that holds `subject`; raises `Misconfigured` if none does."""
        reply = await self.call("STREAM.NAMES", {"subject": subject})
        if not reply.streams:
            raise Misconfigured(f"no stream holds {subject}; ensure the topology first")
        return reply.streams[0]

    async def owner(self, subject: str) -> str:
        """The stream that holds `subject`. Raises `Misconfigured` if none does."""
        for pattern, stream in self._owners.items():
            if matches(pattern, subject):
                return stream
        stream = await self._subject_has_stream(subject)
        reply = await self.call(f"STREAM.INFO.{stream}")
        self._owners.update(dict.fromkeys(reply.config["subjects"], stream))
        return stream

    async def page(self, stream: str, pattern: str, start: int) -> tuple[list[Message], int, int]:
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

        *messages, end = await self._connection.persist(attempt, lambda: self.exists(stream))
        if status(end) == "404":
            return [], start, 0
        if status(end) != "204":
            raise BusUnavailable(target, f"the listing was refused with status {status(end)}")
        last = int(messages[-1].headers["Nats-Sequence"]) if messages else start
        return messages, last, int(end.headers["Nats-Num-Pending"])

    async def full(self, stream: str) -> QueueFull:
        """The error that names the bound of a stream that has reached it."""
        reply = await self.call(f"STREAM.INFO.{stream}")
        return QueueFull(stream, reply.config["max_msgs"])


def _end(message: Message) -> bool:
    """The last part of an answer in several parts; a refusal has no other."""
    return status(message) != ""
