"""A job as its user sees it: progress while it runs, its images, and how it ended.

Core messages bring everything at once. Whatever was missed (a reconnect, a late attach) is read
from the stream of results: what is announced is stored.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

from shared import errors, subjects
from shared.bus.base import Bus, Subscription
from shared.client.calls import cancel_job, error_of, stored_image
from shared.host.exits import first_cause
from shared.messages import (
    CancelReply,
    ImageResult,
    JobCancelled,
    JobDone,
    JobEvent,
    JobFailed,
    Outcome,
    decode,
    decode_event,
    decode_outcome,
)

log = logging.getLogger(__name__)

MAX_PROGRESS: Final = 256
"""Progress events kept for a slow reader; the oldest are dropped, results never are."""
LOOK_SECONDS: Final = (2.0, 5.0)
"""First and longest pause between two looks for a stored outcome."""

Item = JobEvent | ImageResult | Outcome


class Job:
    """One watched job; made by `Darkroom.submit` and `Darkroom.attach`."""

    def __init__(
        self, bus: Bus, job_id: str, *, look_first: bool = False, progress: bool = True
    ) -> None:
        """`look_first`: it may have ended already. Without `progress` only results are listened
        for: a job tells of every step, and who does not read that need not receive it."""
        self.job_id = job_id
        self.dropped = 0
        """Progress events that a slow reader of `events()` missed."""
        self._bus = bus
        self._look_first = look_first
        self._progress = progress
        self._items: deque[Item] = deque()
        self._progress_waiting = 0
        self._images: dict[int, ImageResult] = {}
        self._outcome: Outcome | None = None
        self._error: errors.DarkroomError | None = None
        self._arrived = asyncio.Event()
        self._decided = asyncio.Event()
        self._ended = asyncio.Event()
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = type(self._outcome or self._error).__name__ if self._ended.is_set() else "running"
        return f"<Job {self.job_id} {state}, {len(self._images)} images, {len(self._items)} unread>"

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    # ------------------------------------------------------------------------------ for the user

    async def events(self) -> AsyncIterator[Item]:
        """Progress, images and at last the outcome, as they come; for one reader.

        A reader that falls `MAX_PROGRESS` events behind misses the oldest progress, never an
        image or the outcome. Raises `BusUnavailable` if watching stopped before the job did."""
        while True:
            while self._items:
                item = self._items.popleft()
                if isinstance(item, JobEvent):
                    self._progress_waiting -= 1
                yield item
            if self._ended.is_set():
                break
            self._arrived.clear()
            await self._arrived.wait()
        if self._error is not None:
            raise self._error

    async def something(self, seconds: float) -> bool:
        """Whether `events()` has something to give, or ended, within so many seconds."""
        if self._items or self._ended.is_set():
            return True
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def outcome(self) -> Outcome:
        """How the job ended, once it has. Bound the wait with `asyncio.timeout`."""
        await self._ended.wait()
        if self._outcome is None or self._error is not None:
            raise self._error or errors.BusUnavailable(self.job_id, "watching was stopped")
        return self._outcome

    async def images(self) -> list[ImageResult]:
        """All images, in order, once the job is done. Raises what ended it otherwise:
        `JobCancelled`, `InvalidRequest`, `QueueFull`, `DeadlineExceeded`, `DeadlineUnreachable` or
        `JobFailed`."""
        match await self.outcome():
            case JobDone(images=count):
                return [self._images[index] for index in range(count)]
            case JobFailed(failure=failure):
                raise error_of(self.job_id, failure)
            case JobCancelled():
                raise errors.JobCancelled(self.job_id)

    async def cancel(self) -> CancelReply:
        """See `cancel_job`. The outcome still comes; it may be that the job was faster."""
        return await cancel_job(self._bus, self.job_id)

    def close(self) -> None:
        """Stop watching; the job itself goes on."""
        if self._task is not None:
            self._task.cancel()

    # ------------------------------------------------------------------------------ the watching

    def start(self, group: asyncio.TaskGroup) -> asyncio.Task[None]:
        """Begin to watch, in a task of `group` (once per job)."""
        self._task = group.create_task(self._watch(), name=f"watch {self.job_id}")
        return self._task

    async def listening(self) -> None:
        """Returns once nothing can be missed any more; raises what keeps it from listening."""
        await self._listening.wait()
        if self._error is not None:
            raise self._error

    async def _watch(self) -> None:
        """Never raises but `CancelledError`: what goes wrong is told to who waits for the job."""
        try:
            await self._listen()
            await self._complete()
        except asyncio.CancelledError:
            self._error = errors.BusUnavailable(self.job_id, "watching was stopped")
            raise
        except Exception as raised:
            error = first_cause(raised)
            if not isinstance(error, errors.DarkroomError):
                log.exception("watching %s failed", self.job_id)
                error = errors.BusUnavailable(self.job_id, f"watching failed: {error!r}")
            self._error = error
        finally:
            for event in (self._ended, self._arrived, self._listening):
                event.set()

    async def _listen(self) -> None:
        """Take in what is announced until the outcome is known."""
        async with (
            self._bus.subscribe(subjects.result(self.job_id)) as outcomes,
            self._bus.subscribe(subjects.results(self.job_id)) as images,
            AsyncExitStack() as stack,
            asyncio.TaskGroup() as group,
        ):
            readers = [
                group.create_task(self._read_outcome(outcomes)),
                group.create_task(self._read_images(images)),
                group.create_task(self._look()),
            ]
            if self._progress:
                subscription = self._bus.subscribe(subjects.event(self.job_id))
                events = await stack.enter_async_context(subscription)
                readers.append(group.create_task(self._read_events(events)))
            self._listening.set()
            await self._decided.wait()
            for reader in readers:
                reader.cancel()

    async def _read_outcome(self, messages: Subscription) -> None:
        async for message in messages:
            self._decide(decode_outcome(message.data))

    async def _read_images(self, messages: Subscription) -> None:
        async for message in messages:
            self._take_image(decode(message.data, ImageResult))

    async def _read_events(self, messages: Subscription) -> None:
        async for message in messages:
            try:
                self._take_progress(decode_event(message.data))
            except errors.InvalidRequest as error:  # a newer service's kind of progress
                log.debug("skipped an event of %s: %s", self.job_id, error)

    async def _look(self) -> None:
        """Look for a stored outcome now and then: its announcement may have been missed."""
        pause, longest = LOOK_SECONDS
        if not self._look_first:
            await asyncio.sleep(pause)
        while True:
            try:
                data = await self._bus.stored(subjects.result(self.job_id))
            except errors.BusUnavailable as error:
                log.info("cannot look for the outcome of %s: %s", self.job_id, error)
            else:
                if data is not None:
                    self._decide(decode_outcome(data))
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, longest)

    def _decide(self, outcome: Outcome) -> None:
        self._outcome = self._outcome or outcome
        self._decided.set()

    async def _complete(self) -> None:
        """Fetch the images whose announcement was missed, then let the outcome be seen."""
        assert self._outcome is not None
        if isinstance(self._outcome, JobDone):
            for index in range(self._outcome.images):
                if index not in self._images:
                    self._take_image(await self._fetch_image(index))
        self._put(self._outcome)

    async def _fetch_image(self, index: int) -> ImageResult:
        pause, longest = LOOK_SECONDS
        while True:
            try:
                return await stored_image(self._bus, self.job_id, index)
            except errors.BusUnavailable as error:
                log.info("cannot fetch image %d of %s: %s", index, self.job_id, error)
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, longest)

    # ------------------------------------------------------------------------------- the buffer

    def _take_image(self, image: ImageResult) -> None:
        if image.index not in self._images:
            self._images[image.index] = image
            self._put(image)

    def _take_progress(self, event: JobEvent) -> None:
        if self._progress_waiting >= MAX_PROGRESS:
            oldest = next(i for i, item in enumerate(self._items) if isinstance(item, JobEvent))
            del self._items[oldest]
            self.dropped += 1
            self._progress_waiting -= 1
        self._progress_waiting += 1
        self._put(event)

    def _put(self, item: Item) -> None:
        self._items.append(item)
        self._arrived.set()
