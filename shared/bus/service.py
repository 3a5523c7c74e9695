"""How a service answers `$SRV.PING`, `INFO` and `STATS`, so that the `nats micro` commands see it.

The replies follow the NATS micro protocol (schemas `io.nats.micro.v1.*`). They are made here, on
the bus Protocol alone, so that every bus answers alike, and because nats-py's own module calls
`datetime.utcnow`, which newer Pythons warn about."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from shared.bus.base import Bus, Message, ServiceInfo, Subscription
from shared.errors import DarkroomError

PREFIX: Final = "$SRV"
SCHEMA: Final = "io.nats.micro.v1"
VERBS: Final = ("PING", "INFO", "STATS")
PROCESSOR: Final = "processor_seconds"
"""In the statistics of our processes: what each has used of a core's time."""

Stats = Callable[[], Mapping[str, object]]


@contextlib.asynccontextmanager
async def answer_discovery(bus: Bus, info: ServiceInfo, stats: Stats) -> AsyncIterator[str]:
    """Answer while the context is open: to all, to this service's name, to this instance. Yields
    the instance id. `stats()` appears as the `data` of the one endpoint in the STATS reply, which
    `data_of` reads back; what JSON cannot hold becomes text."""
    answers = _Answers(info, secrets.token_hex(11), stats)
    suffixes = ("", f".{info.name}", f".{info.name}.{answers.instance}")
    async with contextlib.AsyncExitStack() as stack:
        subscriptions = [
            await stack.enter_async_context(bus.subscribe(f"{PREFIX}.{verb}{suffix}"))
            for verb in VERBS
            for suffix in suffixes
        ]
        # Not a task group around the yield: it would wrap what the body raises.
        answering = asyncio.create_task(_serve_all(bus, subscriptions, answers))
        try:
            yield answers.instance
        finally:
            answering.cancel()
            await asyncio.wait([answering])
            if not answering.cancelled():
                answering.result()


async def _serve_all(bus: Bus, subscriptions: Iterable[Subscription], answers: "_Answers") -> None:
    async with asyncio.TaskGroup() as group:
        for subscription in subscriptions:
            group.create_task(_serve(bus, subscription, answers))


async def _serve(bus: Bus, subscription: Subscription, answers: "_Answers") -> None:
    async for message in subscription:
        if message.reply:
            with contextlib.suppress(DarkroomError):  # the asker times out; the service goes on
                await bus.publish(message.reply, answers.to(message.subject.split(".")[1]))


class _Answers:
    """What one instance says about itself."""

    def __init__(self, info: ServiceInfo, instance: str, stats: Stats) -> None:
        self.info = info
        self.instance = instance
        self._stats = stats
        self._started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def to(self, verb: str) -> bytes:
        return json.dumps(self._identity(verb) | self._details(verb), default=str).encode()

    def _identity(self, verb: str) -> dict[str, object]:
        return {
            "type": f"{SCHEMA}.{verb.lower()}_response",
            "name": self.info.name,
            "id": self.instance,
            "version": self.info.version,
            "metadata": dict(self.info.metadata),
        }

    def _details(self, verb: str) -> dict[str, object]:
        endpoint = {
            "name": "default",
            "subject": f"{PREFIX}.STATS.{self.info.name}.{self.instance}",
            "queue_group": "",
        }
        counts = {
            "num_requests": 0,
            "num_errors": 0,
            "last_error": "",
            "processing_time": 0,
            "average_processing_time": 0,
        }
        match verb:
            case "INFO":
                listed: dict[str, object] = {**endpoint, "metadata": {}}
                return {"description": self.info.description, "endpoints": [listed]}
            case "STATS":
                data = {"data": dict(self._stats())}
                return {"started": self._started, "endpoints": [endpoint | counts | data]}
        return {}


def service_of(reply: Message) -> str:
    """Of a STATS reply: which service of ours this is; empty for others."""
    return str((json.loads(reply.data).get("metadata") or {}).get("service", ""))


def data_of(reply: Message) -> Mapping[str, object]:
    """The `stats()` inside a STATS reply; empty where the service gave none."""
    endpoints = json.loads(reply.data).get("endpoints") or [{}]
    data: Mapping[str, object] = endpoints[0].get("data") or {}
    return data
