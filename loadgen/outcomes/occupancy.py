"""How full a Darkroom is while it is under load: its queue, and the rows that share a step.

Both sources read counters that only grow, so that a sample says what happened since the last one,
however short the moments were in which somebody looked.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from loadgen.outcomes.outcome import Sample
from shared import subjects
from shared.bus.base import Bus, Message
from shared.errors import DarkroomError
from shared.services import bus_name

EVERY_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 0.25
"""How long the processes of a fleet get to answer."""
BEGUN: Final = "darkroom_stage_waiting_seconds_count"
ENDED: Final = "darkroom_stage_running_seconds_count"
SCRAPE_SECONDS: Final = 5.0
"""A gateway gathers its whole fleet's metrics, which takes half a second in the best case."""


Key = tuple[str, str]
"""Instance and model: a process that was started again is another instance."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Denoising steps since a process started, and the rows that took them."""

    steps: int
    rows: int


@dataclass(frozen=True, slots=True)
class Reading:
    """`queue_depth`: what waits to be worked on; None if it is not told."""

    queue_depth: int | None = None
    steps: Mapping[Key, Steps] = field(default_factory=dict)


class Source(Protocol):
    async def read(self) -> Reading:
        """The server now; an empty reading where it tells nothing, or nothing in time."""
        ...


async def keep_sampling(
    source: Source | None,
    in_flight: Callable[[], int],
    take: Callable[[Sample], None],
    every: float = EVERY_SECONDS,
) -> None:
    """Hand a sample to `take` now and then every so many seconds, until cancelled. Samples count
    from this call; without a source they say only what is in flight."""
    clock = asyncio.get_running_loop().time
    started, past = clock(), dict[Key, Steps]()
    while True:
        now = await source.read() if source else Reading()
        at = clock() - started
        take(Sample(at, now.queue_depth, in_flight(), rows_per_step(past, now.steps)))
        past |= now.steps
        await asyncio.sleep(every - at % every)


def rows_per_step(past: Mapping[Key, Steps], now: Mapping[Key, Steps]) -> float | None:
    """The mean over the steps made in between, None if there were none. Who is new, or did not
    answer before, is not counted: it is not known when it made its steps. Pure."""
    known = [(count, past[key]) for key, count in now.items() if key in past]
    steps = sum(count.steps - before.steps for count, before in known)
    rows = sum(count.rows - before.rows for count, before in known)
    return rows / steps if steps > 0 else None


class NatsSource:
    """Asks the processes themselves, and the streams: cheap enough to do while measuring."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(self) -> Reading:
        try:
            answers = await self._bus.gather("$SRV.STATS", b"", ANSWER_SECONDS)
            submitted = await self._bus.depth(subjects.JOBS, subjects.ALL_SUBMITS)
            nodes = await self._bus.depth(subjects.WORK, subjects.ALL_WORK)
        except DarkroomError:
            return Reading()
        return from_stats(answers, submitted + nodes)


class _Engine(msgspec.Struct):
    steps: int
    row_steps: int


class _Data(msgspec.Struct):
    in_flight: int = 0
    engines: dict[str, _Engine] = {}


class _Endpoint(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


class _Stats(msgspec.Struct):
    """As much of a STATS reply as is of interest here."""

    name: str
    id: str
    endpoints: list[_Endpoint]


def from_stats(answers: Iterable[Message], stored: int) -> Reading:
    """From STATS replies, and the number of messages in the work queues: they hold what is being
    worked on too. Pure."""
    working = 0
    steps: dict[Key, Steps] = {}
    for answer in answers:
        try:
            stats = msgspec.json.decode(answer.data, type=_Stats)
        except msgspec.DecodeError:
            continue  # somebody else's service, which may say what it likes
        if stats.name.startswith(bus_name("")):
            for endpoint in stats.endpoints:
                working += endpoint.data.in_flight
                for model, engine in endpoint.data.engines.items():
                    steps[stats.id, model] = Steps(engine.steps, engine.row_steps)
    return Reading(max(0, stored - working), steps)


class HttpSource:
    """Reads the `/metrics` of a gateway at `url`, which is dearer: every process renders all it
    has. The queue is as old as the planners' last look. Servers that are no Darkroom are not
    asked again once they have answered."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/metrics"
        self._foreign = False

    async def read(self) -> Reading:
        if self._foreign:
            return Reading()
        try:
            async with asyncio.timeout(SCRAPE_SECONDS), self._session.get(self._url) as answer:
                text = await answer.text() if answer.status == 200 else ""
                self._foreign = answer.status in (404, 405) or (
                    answer.status == 200 and "darkroom_" not in text
                )
        except (aiohttp.ClientError, TimeoutError, UnicodeError):
            return Reading()
        # Parsing takes several milliseconds per process, in which nothing could be sent.
        return await asyncio.to_thread(from_metrics, text)


def from_metrics(text: str) -> Reading:
    """From the exposition text of a whole fleet; empty if it is none. Pure."""
    totals: dict[str, dict[tuple[str, str, str], float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for name, labels, value, *_ in family.samples:
                key = (labels.get("instance", ""), labels.get("kind", ""), labels.get("model", ""))
                totals.setdefault(name, {})[key] = value
    except ValueError:
        return Reading()
    steps = totals.get("darkroom_batch_rows_count", {})
    rows = totals.get("darkroom_batch_rows_sum", {})
    return Reading(
        _queue_depth(totals),
        {(key[0], key[2]): Steps(int(count), int(rows[key])) for key, count in steps.items()},
    )


def _queue_depth(totals: Mapping[str, Mapping[tuple[str, str, str], float]]) -> int | None:
    """Nodes in the queues, less those that are being worked on: begun, and not ended."""
    depths = totals.get("darkroom_queue_depth_nodes", {})
    if not depths:
        return None
    stored: dict[tuple[str, str], float] = {}
    for (_, kind, model), depth in depths.items():  # every planner looks at all queues
        stored[kind, model] = max(depth, stored.get((kind, model), 0.0))
    # Planning is timed too, but its queue is none of these, and when it was to begin is not told.
    working = sum(
        sign * count
        for name, sign in ((BEGUN, 1), (ENDED, -1))
        for (_, kind, model), count in totals.get(name, {}).items()
        if (kind, model) in stored
    )
    return max(0, int(sum(stored.values()) - working))
