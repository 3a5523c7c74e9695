"""A queue in front of one pipeline, or several alike: the whole of a baseline but its HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from benchmarks.baselines.batching import Policy, Run, Waiting, expired, next_batch
from benchmarks.baselines.pipeline import compatible
from shared.errors import DeadlineExceeded, QueueFull
from shared.host.tasks import alongside
from shared.messages import JobSpec

MAX_WAITING: Final = 1024
"""Images in the queue."""

Drawn = TypeVar("Drawn")
"""What a pipeline gives for one image: its pixels, or its file."""
Draw = Callable[[Sequence[JobSpec]], Sequence[Drawn]]


@dataclass(slots=True, eq=False)
class _Image(Generic[Drawn]):
    job_id: str
    spec: JobSpec
    waiting: Waiting
    drawn: asyncio.Future[Drawn] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Queue(Generic[Drawn]):
    """Images wait here in order of arrival. Use `drawing()`, which works them off."""

    def __init__(self, draw: Draw[Drawn], policy: Policy) -> None:
        self._draw, self._policy = draw, policy
        self._images: list[_Image[Drawn]] = []
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Queue {len(self._images)}/{MAX_WAITING} images wait, {self._policy}>"

    async def images(self, job_id: str, spec: JobSpec) -> list[Drawn]:
        """All images of a job; image i is drawn from seed + i.

        When the caller is cancelled, what has not started is dropped. Raises `QueueFull`,
        `DeadlineExceeded` for a job whose deadline has passed when its turn comes, or what the
        pipeline raised."""
        if len(self._images) + spec.n > MAX_WAITING:
            raise QueueFull("the baseline's queue", MAX_WAITING)
        now = time.monotonic()
        deadline = None if spec.deadline is None else now + spec.deadline - time.time()
        waiting = Waiting(compatible(spec), now, deadline)
        mine: list[_Image[Drawn]] = [
            _Image(job_id, msgspec.structs.replace(spec, n=1, seed=spec.seed + i), waiting)
            for i in range(spec.n)
        ]
        self._images += mine
        self._changed.set()
        # Cancelling the gathering cancels its futures, and `_next` lets go of cancelled images.
        return await asyncio.gather(*(image.drawn for image in mine))

    async def work(self, executor: Executor) -> None:
        """Run batch after batch on `executor`, one at a time; forever."""
        while True:
            batch = await self._next()
            await self._run(batch, executor)

    async def _next(self) -> list[_Image[Drawn]]:
        while True:
            now = time.monotonic()
            self._give_up(now)
            self._images = [image for image in self._images if not image.drawn.done()]
            self._changed.clear()
            queue = [image.waiting for image in self._images]
            decision = next_batch(queue, now, self._policy)
            if isinstance(decision, Run):
                batch = [self._images[position] for position in decision.positions]
                self._images = [image for image in self._images if image not in batch]
                return batch
            await self._change(decision.until)

    def _give_up(self, now: float) -> None:
        """Whose turn would come too late is told so, and leaves."""
        for position in expired([image.waiting for image in self._images], now):
            image = self._images[position]
            if not image.drawn.done():
                deadline = image.spec.deadline
                assert deadline is not None  # or it would not have expired
                image.drawn.set_exception(DeadlineExceeded(image.job_id, deadline))

    async def _change(self, until: float | None) -> None:
        """An arrival, or the moment `until`."""
        try:
            async with asyncio.timeout(None if until is None else until - time.monotonic()):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _run(self, batch: Sequence[_Image[Drawn]], executor: Executor) -> None:
        specs = [image.spec for image in batch]
        try:
            drawn = await asyncio.get_running_loop().run_in_executor(executor, self._draw, specs)
        except Exception as error:
            for image in batch:
                if not image.drawn.done():
                    image.drawn.set_exception(error)
            return
        for image, one in zip(batch, drawn, strict=True):
            if not image.drawn.done():
                image.drawn.set_result(one)


@asynccontextmanager
async def drawing(
    draw: Draw[Drawn], executors: Sequence[Executor], policy: Policy
) -> AsyncIterator[Queue[Drawn]]:
    """A queue that is worked off while the context is open. `draw` is called on each of
    `executors`, of one thread or process each, whichever has nothing to do."""
    queue = Queue(draw, policy)
    async with AsyncExitStack() as stack:
        for executor in executors:
            await stack.enter_async_context(alongside(queue.work(executor)))
        yield queue
