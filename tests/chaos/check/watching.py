"""Everything that is written while a case runs, collected as it happens.

A bucket keeps only the last revision of a key, so revisions are collected by a push consumer of its
stream, from the first sequence on. The consumer does not outlive its server; it is then made anew
from the last sequence seen. What a dying server had sent and nobody received leaves holes in the
sequence; `caught_up` asks for those one by one. A revision that was replaced before it could be
seen is gone for good: `unseen` counts those.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from shared import subjects
from shared.bus.base import Bus, Subscription
from shared.bus.nats import api
from shared.errors import BusUnavailable, DarkroomError, InvalidRequest
from shared.jobs.record import JobRecord
from shared.messages import decode
from tests.chaos.check.audit import History, Stored

LOOK_SECONDS: Final = 0.5
"""Pause between two looks whether the consumer still exists."""
REQUEST_SECONDS: Final = 2.0
NO_MESSAGE: Final = 10037
"""JetStream's error code for a sequence that holds nothing (any more)."""


class StreamWatch:
    """All messages of `stream`, from the first one on, across restarts of the server."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus = bus
        self._stream = stream
        self._token = f"{stream}-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._begin: int | None = None
        """Last sequence before anything was watched."""
        self.messages: dict[int, Stored] = {}
        self._gone: set[int] = set()
        """Sequences that were replaced before they could be seen."""

    @property
    def last(self) -> int:
        return max(self.messages, default=0)

    @property
    def unseen(self) -> int:
        """Messages, since the watch began, that were replaced before they could be seen."""
        return len(self._holes()) + len(self._gone)

    def ordered(self) -> list[Stored]:
        return [self.messages[sequence] for sequence in sorted(self.messages)]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            name = f"{self._token}-{next(self._numbers)}"
            async with self._bus.subscribe(f"chaos.{name}") as received:
                taking = asyncio.create_task(self._take(received))
                try:
                    with contextlib.suppress(DarkroomError):
                        if self._begin is None:
                            self._begin = await self._last_stored()
                        await self._consumer(name)
                        await self._while_it_exists(name)
                finally:
                    taking.cancel()
            await asyncio.sleep(0.05)

    async def caught_up(self) -> bool:
        """Whether all that is stored now has been seen, if need be by asking for it here."""
        try:
            for sequence in self._holes():
                await self._ask_for(sequence)
            return self._begin is not None and self.last >= await self._last_stored()
        except DarkroomError:
            return False

    def _holes(self) -> list[int]:
        since = range((self._begin or 0) + 1, self.last)
        return [s for s in since if s not in self.messages and s not in self._gone]

    async def _ask_for(self, sequence: int) -> None:
        """Raises `BusUnavailable`."""
        body = json.dumps({"seq": sequence}).encode()
        subject = f"{api.API}.STREAM.MSG.GET.{self._stream}"
        answer = json.loads((await self._bus.request(subject, body, REQUEST_SECONDS)).data)
        match answer:
            case {"message": {"subject": str(about), "data": str(data)}}:
                self.messages[sequence] = Stored(sequence, about, base64.b64decode(data))
            case {"error": {"err_code": code}} if code == NO_MESSAGE:
                self._gone.add(sequence)
            case _:
                raise BusUnavailable("JetStream", str(answer.get("error")))

    async def _last_stored(self) -> int:
        return int((await self._call(f"STREAM.INFO.{self._stream}"))["state"]["last_seq"])

    async def _take(self, received: Subscription) -> None:
        async for message in received:
            sequence = api.sequence(message.reply)
            self.messages[sequence] = Stored(sequence, message.subject, message.data)

    async def _consumer(self, name: str) -> None:
        config = {
            "name": name,
            "deliver_subject": f"chaos.{name}",
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.last + 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": api.nanoseconds(30),
        }
        body = {"stream_name": self._stream, "config": config}
        await self._call(f"CONSUMER.CREATE.{self._stream}.{name}", body)

    async def _while_it_exists(self, name: str) -> None:
        """Returns, or raises `BusUnavailable`, once it is gone or has delivered what never came."""
        behind = 0
        while behind < 3:
            await asyncio.sleep(LOOK_SECONDS)
            info = await self._call(f"CONSUMER.INFO.{self._stream}.{name}")
            behind = behind + 1 if info["delivered"]["stream_seq"] > self.last else 0

    async def _call(self, verb: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body else b""
        answer = await self._bus.request(f"{api.API}.{verb}", data, REQUEST_SECONDS)
        found = json.loads(answer.data)
        if "error" in found:
            raise BusUnavailable("JetStream", found["error"]["description"])
        return found


class Watch:
    """Results of one fleet, and its `records` if wanted, as they are written. Everything is kept
    in memory: about 50 KB for a job with its records, 20 KB without."""

    def __init__(self, bus: Bus, with_records: bool = True) -> None:
        self._bus = bus
        self._with_records = with_records
        self.records = StreamWatch(bus, api.bucket_stream(subjects.RECORDS))
        self.results = StreamWatch(bus, subjects.RESULTS)
        self._announced: list[tuple[str, bytes]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._with_records:
                group.create_task(self.records.run())
            group.create_task(self.results.run())
            group.create_task(self._listen())

    async def _listen(self) -> None:
        """Outcomes as clients hear them: published, whether or not the stream took them."""
        async with self._bus.subscribe(subjects.result("*")) as outcomes:
            async for message in outcomes:
                self._announced.append((message.subject, message.data))

    async def caught_up(self) -> bool:
        records = not self._with_records or await self.records.caught_up()
        return records and await self.results.caught_up()

    def history(self, acknowledged: Iterable[str]) -> History:
        revisions: defaultdict[str, list[JobRecord]] = defaultdict(list)
        for stored in self.records.ordered():
            job_id = stored.subject.rsplit(".", 1)[1]
            with contextlib.suppress(InvalidRequest):  # such records are written by `fuzz.py` only
                revisions[job_id].append(decode(stored.data, JobRecord))
        return History(
            acknowledged=frozenset(acknowledged),
            revisions=dict(revisions),
            results=self.results.ordered(),
            announced=self._announced,
        )


@contextlib.asynccontextmanager
async def watched(bus: Bus, with_records: bool = True) -> AsyncIterator[Watch]:
    watch = Watch(bus, with_records)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
