"""Pulls deliveries while there is room, keeps them alive while they progress, drains at the end.

Every service that takes work from a queue runs one `PullLoop`: planners on JOBS, workers on WORK.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.bus.base import Consumer, Delivery
from shared.errors import BusUnavailable

log = logging.getLogger(__name__)

PULL_LIMIT: Final = 4
"""Deliveries taken at once, so that several processes share a sudden queue evenly."""


@dataclass(eq=False, slots=True)
class Work:
    """A delivery in our hands. `progressed()` is the sign of life that keeps it ours."""

    delivery: Delivery
    last_progress: float = field(default_factory=time.monotonic)

    def progressed(self) -> None:
        self.last_progress = time.monotonic()


@dataclass(frozen=True, slots=True)
class PullStatistics:
    in_flight: int
    capacity: int
    handled: int
    failed: int


class PullLoop:
    """Hands each delivery of `consumers` to `handle`, at most `capacity` at a time (and up to one
    per consumer above that, when fetches that were already waiting deliver at the same moment).

    Consumers come in order of priority: the first one that has something is served. `handle`
    acknowledges; what it leaves unacknowledged is delivered again.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        handle: Callable[[Work], Awaitable[None]],
        *,
        capacity: int,
        ack_wait: float,
        stall_seconds: float,
        drain_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._consumers = consumers
        self._handle = handle
        self._capacity = capacity
        self._ack_wait = ack_wait
        self._stall_seconds = stall_seconds
        self._drain_seconds = drain_seconds
        self._poll_seconds = poll_seconds
        self._in_flight: dict[asyncio.Task[None], Work] = {}
        self._polls: dict[asyncio.Task[Sequence[Delivery]], Consumer] = {}
        self._handled = 0
        self._failed = 0

    def statistics(self) -> PullStatistics:
        return PullStatistics(len(self._in_flight), self._capacity, self._handled, self._failed)

    def __repr__(self) -> str:
        return f"<PullLoop {len(self._in_flight)}/{self._capacity} in flight, {self._handled} done>"

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then what is in flight gets `drain_seconds` to finish."""
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep_alive())
            stopped = group.create_task(_wait(stop))
            while not stop.is_set():
                await self._turn(group, stopped)
            await self._drain()
            keeper.cancel()

    async def _turn(self, group: asyncio.TaskGroup, stopped: asyncio.Task[None]) -> None:
        """Start what waits, or sleep until something arrives, ends, or we are to stop."""
        room = self._capacity - len(self._in_flight)
        if room > 0 and await self._start_waiting(group, room):
            return
        wake: set[asyncio.Task[object]] = {stopped, *self._polls}
        if room > 0:
            polled = set(self._polls.values())
            for consumer in self._consumers:
                if consumer not in polled:
                    poll = group.create_task(self._fetch(consumer, 1, self._poll_seconds))
                    self._polls[poll] = consumer
                    wake.add(poll)
        else:
            wake.update(self._in_flight)
        done, _ = await asyncio.wait(wake, return_when=asyncio.FIRST_COMPLETED)
        for poll in [p for p in self._polls if p in done]:
            del self._polls[poll]
            for delivery in poll.result():
                self._start(group, delivery)

    async def _start_waiting(self, group: asyncio.TaskGroup, room: int) -> bool:
        for consumer in self._consumers:
            deliveries = await self._fetch(consumer, min(room, PULL_LIMIT), 0.0)
            for delivery in deliveries:
                self._start(group, delivery)
            if deliveries:
                return True
        return False

    async def _fetch(self, consumer: Consumer, limit: int, wait: float) -> Sequence[Delivery]:
        try:
            return await consumer.fetch(limit, wait)
        except BusUnavailable as error:
            log.warning("no work can be pulled: %s", error)
            await asyncio.sleep(min(wait, 0.5))
            return ()

    def _start(self, group: asyncio.TaskGroup, delivery: Delivery) -> None:
        work = Work(delivery)
        task = group.create_task(self._guarded(work))
        self._in_flight[task] = work
        task.add_done_callback(self._in_flight.pop)

    async def _guarded(self, work: Work) -> None:
        """One delivery's trouble is its own: it is logged, and the delivery comes again."""
        try:
            await self._handle(work)
            self._handled += 1
        except Exception:
            self._failed += 1
            log.exception("%s is left to be delivered again", work.delivery.subject)

    async def _keep_alive(self) -> None:
        """Extend what made progress of late; what did not is lost to somebody else."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            alive_since = time.monotonic() - self._stall_seconds
            for work in list(self._in_flight.values()):
                if work.last_progress >= alive_since:
                    try:
                        await work.delivery.extend()
                    except BusUnavailable as error:
                        log.warning("%s could not be extended: %s", work.delivery.subject, error)

    async def _drain(self) -> None:
        if self._polls:
            await asyncio.wait(self._polls)
            for poll in self._polls:
                for delivery in poll.result():
                    await delivery.retry(0.0)
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=self._drain_seconds)
        for task in list(self._in_flight):
            task.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
