"""Pulls deliveries while there is capacity, keeps them alive while they progress, and drains.

Every service that takes work from a queue runs one `PullLoop`: planners on JOBS, workers on WORK.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.bus.base import Consumer, Delivery
from shared.bus.readiness import Refusal
from shared.config import Settings
from shared.errors import BusUnavailable, DarkroomError
from shared.host.terminate import terminate

log = logging.getLogger(__name__)

PULL_LIMIT: Final = 4
"""Deliveries taken at once, so that several processes share a sudden queue evenly."""
BUSY_POLL_SECONDS: Final = 0.5
"""Longest wait of a fetch of a process that has something in hand: until the next one, the load
that the bus knows of it is out of date."""
CAPACITY_RETRY_SECONDS: Final = 0.05
"""Pause before a process or a handler without capacity is asked again."""


@dataclass(eq=False, slots=True)
class Work:
    """A delivery in our hands. `progressed()` is the sign of life that keeps it ours."""

    delivery: Delivery
    source: "Source | None" = None
    """Where it was pulled from."""
    last_progress: float = field(default_factory=lambda: _now())

    def progressed(self) -> None:
        self.last_progress = _now()


@dataclass(frozen=True, slots=True)
class Source:
    """A queue, which is pulled from while fewer than `capacity` deliveries are in hand."""

    consumer: Consumer
    capacity: int
    has_capacity: Callable[[], bool] = lambda: True
    """Looked at again every `CAPACITY_RETRY_SECONDS` while it says no."""


@dataclass(frozen=True, slots=True)
class PullStatistics:
    in_flight: int
    capacity: int
    handled: int
    failed: int


def end_stalled(subject: str) -> None:
    """A thread that hangs cannot be ended, and keeps what it holds: the process has to end."""
    terminate(f"{subject} makes no progress")


def number(in_hand: int) -> int:
    """The load of a process whose deliveries are all alike."""
    return in_hand


async def _nothing() -> None:
    pass


def willing() -> None:
    """The refusal of a process that always takes work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puller:
    """Whose deliveries a `PullLoop` pulls: what it calls, and when."""

    handle: Callable[[Work], Awaitable[None]]
    """For each delivery. It acknowledges; what it leaves unacknowledged is delivered again."""
    decline: Callable[[Work], Awaitable[None]]
    """For what arrives after `stop`: gives it back."""
    drain: Callable[[], Coroutine[None, None, None]] = _nothing
    """Once, after `stop`."""
    refusal: Callable[[], Refusal | None] = willing
    """Before each pull: nothing is pulled while it gives a reason."""
    on_stall: Callable[[str], None] = end_stalled
    """With a subject whose handler made no progress for so long that others have it."""
    load: Callable[[int], int] = number
    """Makes of the number of deliveries in hand what a pull tells: of the processes that wait, the
    one with the least is served first."""


class PullLoop:
    """Hands each delivery of `sources` to its `puller`, while a source has capacity (and up to one
    per source above that, when fetches that were already waiting deliver at the same moment).

    Sources come in order of priority: the first one that has something is served. They may change
    while it runs."""

    def __init__(self, sources: Sequence[Source], settings: Settings, puller: Puller) -> None:
        self._sources = sources
        self._settings = settings
        self._puller = puller
        self._in_flight: dict[asyncio.Task[None], Work] = {}
        self._polls: dict[asyncio.Task[Sequence[Delivery]], Source] = {}
        self._unpulled: dict[Consumer, str] = {}
        """What was wrong when these were pulled from last."""
        self._handled = 0
        self._failed = 0
        self._changed = asyncio.Event()
        """The sources are others than they were."""

    def statistics(self) -> PullStatistics:
        capacity = self._sources[-1].capacity if self._sources else 0
        return PullStatistics(len(self._in_flight), capacity, self._handled, self._failed)

    def __repr__(self) -> str:
        s = self.statistics()
        return f"<PullLoop {s.in_flight}/{s.capacity} in flight, {s.handled} done>"

    def refusal(self) -> Refusal | None:
        """None while it takes work, or has some that gets on."""
        now = _now()
        for work in self._in_flight.values():
            if now - work.last_progress >= self._settings.stall_seconds:
                return Refusal(
                    f"{work.delivery.subject} has made no progress for "
                    f"{now - work.last_progress:.0f} s (DARKROOM_STALL_SECONDS)"
                )
        if self._in_flight:
            return None
        pulled = {source.consumer for source in self._sources}
        unpulled = next((why for one, why in self._unpulled.items() if one in pulled), None)
        return self._puller.refusal() or (Refusal(unpulled) if unpulled else None)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then what is in flight gets `drain_seconds` to finish."""
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep_alive())
            stopped = group.create_task(_wait(stop))
            changed = group.create_task(_wait(self._changed))
            while not stop.is_set():
                if changed.done():
                    self._changed.clear()
                    changed = group.create_task(_wait(self._changed))
                await self._turn(group, stopped, changed)
            changed.cancel()
            await self._drain(group)
            keeper.cancel()

    def pull_from(self, sources: Sequence[Source]) -> None:
        """From now on these are the queues. What still arrives of another one is declined; see
        `let_go` for what is in hand of it."""
        self._sources = tuple(sources)
        self._changed.set()

    async def let_go(
        self, sources: Collection[Source], drain: Callable[[], Awaitable[None]]
    ) -> None:
        """What is in flight of `sources`, which are pulled from no more, gets `drain_seconds` to
        finish after `drain`; then it is cancelled."""
        gone = set(sources)
        await drain()
        left = {task for task, work in self._in_flight.items() if work.source in gone}
        if left:
            _, left = await asyncio.wait(left, timeout=self._settings.drain_seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _turn(
        self,
        group: asyncio.TaskGroup,
        stopped: asyncio.Task[None],
        changed: asyncio.Task[None],
    ) -> None:
        """Start what waits, or sleep until something arrives, ends or changes, or we are to
        stop."""
        if self._puller.refusal() is not None:
            await asyncio.wait((stopped,), timeout=CAPACITY_RETRY_SECONDS)
            return
        accepting = [source for source in self._sources if source.has_capacity()]
        unfilled = [source for source in accepting if self._free_capacity(source) > 0]
        polled = set(self._polls.values())  # these were empty, and what comes comes by the poll
        unpolled = [source for source in unfilled if source not in polled]
        for source in unpolled:
            if await self._start_waiting(group, source):
                return
        for source in unpolled:
            wait = self._settings.poll_seconds
            if self._in_flight:
                wait = min(wait, BUSY_POLL_SECONDS)
            poll = group.create_task(self._fetch(source.consumer, 1, wait))
            self._polls[poll] = source
        wake: set[asyncio.Task[object]] = {stopped, changed, *self._polls}
        if len(unfilled) < len(self._sources):
            wake.update(self._in_flight)
        again = None if len(accepting) == len(self._sources) else CAPACITY_RETRY_SECONDS
        done, _ = await asyncio.wait(wake, timeout=again, return_when=asyncio.FIRST_COMPLETED)
        for poll in [p for p in self._polls if p in done]:
            source = self._polls.pop(poll)
            for delivery in poll.result():
                await self._take(group, source, delivery)

    def _free_capacity(self, source: Source) -> int:
        return source.capacity - len(self._in_flight)

    async def _start_waiting(self, group: asyncio.TaskGroup, source: Source) -> bool:
        limit = min(self._free_capacity(source), PULL_LIMIT)
        deliveries = await self._fetch(source.consumer, limit, 0.0)
        for delivery in deliveries:
            await self._take(group, source, delivery)
        return bool(deliveries)

    async def _fetch(self, consumer: Consumer, limit: int, wait: float) -> Sequence[Delivery]:
        try:
            found = await consumer.fetch(limit, wait, load=self._puller.load(len(self._in_flight)))
        except BusUnavailable as error:
            self._unpulled[consumer] = f"no work can be pulled: {error}"
            log.warning("no work can be pulled: %s", error)
            await asyncio.sleep(min(wait, 0.5))
            return ()
        self._unpulled.pop(consumer, None)
        return found

    async def _take(self, group: asyncio.TaskGroup, source: Source, delivery: Delivery) -> None:
        """Start it, unless the queue is not ours any more."""
        if source in self._sources:
            self._start(group, Work(delivery, source))
        else:
            await self._give_back(delivery)

    def _start(self, group: asyncio.TaskGroup, work: Work) -> None:
        task = group.create_task(self._guarded(work))
        self._in_flight[task] = work
        task.add_done_callback(self._in_flight.pop)

    async def _guarded(self, work: Work) -> None:
        """One delivery's trouble is its own: it is logged, and the delivery comes again."""
        try:
            await self._puller.handle(work)
            self._handled += 1
        except Exception:
            self._failed += 1
            log.exception("%s is left to be delivered again", work.delivery.subject)

    async def _keep_alive(self) -> None:
        """Extend what made progress of late; what did not is lost to somebody else. What has not
        for so long that it must be somebody else's by now hangs."""
        ack_wait, stall_seconds = self._settings.ack_wait, self._settings.stall_seconds
        while True:
            await asyncio.sleep(ack_wait / 3)
            now = _now()
            for work in list(self._in_flight.values()):
                silent = now - work.last_progress
                if silent < stall_seconds:
                    await self._extend(work.delivery)
                elif silent > stall_seconds + 2 * ack_wait:
                    self._puller.on_stall(work.delivery.subject)

    async def _extend(self, delivery: Delivery) -> None:
        try:
            await delivery.extend()
        except BusUnavailable as error:
            log.warning("%s could not be extended: %s", delivery.subject, error)

    async def _drain(self, group: asyncio.TaskGroup) -> None:
        """Give back what still arrives, and let what runs finish or be handed over."""
        draining = group.create_task(self._puller.drain())
        if self._polls:
            await asyncio.wait(self._polls)
            for poll in self._polls:
                for delivery in poll.result():
                    await self._give_back(delivery)
        await draining
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=self._settings.drain_seconds)
        for task in list(self._in_flight):
            task.cancel()

    async def _give_back(self, delivery: Delivery) -> None:
        try:
            await self._puller.decline(Work(delivery))
        except DarkroomError as error:
            log.warning("%s comes again when its lease ends: %s", delivery.subject, error)


def _now() -> float:
    """By the event loop's clock, which tests may turn."""
    return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
