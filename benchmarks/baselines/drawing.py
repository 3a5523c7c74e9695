"""A queue in front of one pipeline on one thread: the whole of a baseline but its HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import torch

from benchmarks.baselines.batching import Policy, Run, Waiting, expired, next_batch
from benchmarks.baselines.pipeline import compatible
from services.fleet.tasks import alongside
from shared.errors import DeadlineExceeded, QueueFull
from shared.messages import JobSpec

MAX_WAITING: Final = 1024
"""Images in the queue."""

Draw = Callable[[Sequence[JobSpec]], Sequence[torch.Tensor]]


@dataclass(slots=True, eq=False)
class _Image:
    job_id: str
    spec: JobSpec
    waiting: Waiting
    pixels: asyncio.Future[torch.Tensor] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Queue:
    """Images wait here in order of arrival. Use `drawing()`, which works them off."""

    def __init__(self, draw: Draw, thread: ThreadPoolExecutor, policy: Policy) -> None:
        self._draw, self._thread, self._policy = draw, thread, policy
        self._images: list[_Image] = []
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Queue {len(self._images)}/{MAX_WAITING} images wait, {self._policy}>"

    async def images(self, job_id: str, spec: JobSpec) -> list[torch.Tensor]:
        """All images of a job, uint8 (height, width, 3); image i is drawn from seed + i.

        When the caller is cancelled, what has not started is dropped. Raises `QueueFull`,
        `DeadlineExceeded` for a job whose deadline has passed when its turn comes, or what the
        pipeline raised."""
        if len(self._images) + spec.n > MAX_WAITING:
            raise QueueFull("the baseline's queue", MAX_WAITING)
        now = time.monotonic()
        deadline = None if spec.deadline is None else now + spec.deadline - time.time()
        waiting = Waiting(compatible(spec), now, deadline)
        mine = [
            _Image(job_id, msgspec.structs.replace(spec, n=1, seed=spec.seed + i), waiting)
            for i in range(spec.n)
        ]
        self._images += mine
        self._changed.set()
        # Cancelling the gathering cancels its futures, and `_next` lets go of cancelled images.
        return await asyncio.gather(*(image.pixels for image in mine))

    async def work(self) -> None:
        """Run batch after batch; forever."""
        while True:
            batch = await self._next()
            await self._run(batch)

    async def _next(self) -> list[_Image]:
        while True:
            now = time.monotonic()
            self._give_up(now)
            self._images = [image for image in self._images if not image.pixels.done()]
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
            if not image.pixels.done():
                deadline = image.spec.deadline
                assert deadline is not None  # or it would not have expired
                image.pixels.set_exception(DeadlineExceeded(image.job_id, deadline))

    async def _change(self, until: float | None) -> None:
        """An arrival, or the moment `until`."""
        try:
            async with asyncio.timeout(None if until is None else until - time.monotonic()):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _run(self, batch: Sequence[_Image]) -> None:
        specs = [image.spec for image in batch]
        try:
            drawn = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._draw, specs
            )
        except Exception as error:
            for image in batch:
                if not image.pixels.done():
                    image.pixels.set_exception(error)
            return
        for image, pixels in zip(batch, drawn, strict=True):
            if not image.pixels.done():
                image.pixels.set_result(pixels)


@asynccontextmanager
async def drawing(draw: Draw, thread: ThreadPoolExecutor, policy: Policy) -> AsyncIterator[Queue]:
    """A queue that is worked off while the context is open. `draw` is called on `thread`."""
    queue = Queue(draw, thread, policy)
    async with alongside(queue.work()):
        yield queue
