"""A compute thread with a small queue in front: what waits at the same moment runs as one batch."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Final, Generic, TypeVar

from shared.errors import QueueFull
from shared.messages import ComponentReport, CostReport

MEMORY: Final = 9
"""Batches whose seconds are remembered."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchedCompute(Generic[Item, Result]):
    """Runs `compute(items) -> results` in one thread, on up to `max_batch` items at a time.

    There is no window: the first item starts at once, and whatever arrives while it runs forms the
    next batch. At `max_waiting` items `submit` raises `QueueFull`.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._name = name
        self._compute = compute
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._runner: asyncio.Task[None] | None = None
        self._running = 0
        self._seconds: deque[float] = deque(maxlen=MEMORY)
        """Of the last batches, for each of their items."""

    def __repr__(self) -> str:
        return f"<BatchedCompute {self._name} {len(self._waiting)}/{self._max_waiting} waiting>"

    async def submit(self, item: Item) -> Result:
        """The item's result, or the exception that its batch raised."""
        if len(self._waiting) >= self._max_waiting:
            raise QueueFull(f"the compute queue of {self._name}", self._max_waiting)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_all())
        return await future

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = (
                self._waiting[: self._max_batch],
                self._waiting[self._max_batch :],
            )
            batch = [(item, future) for item, future in batch if not future.done()]
            if not batch:
                continue
            items = [item for item, _ in batch]
            began, self._running = time.perf_counter(), len(items)
            try:
                results = await loop.run_in_executor(self._thread, self._compute, items)
                pairs = list(zip(batch, results, strict=True))
                self._seconds.append((time.perf_counter() - began) / len(items))
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            finally:
                self._running = 0
            for (_, future), result in pairs:
                if not future.done():
                    future.set_result(result)

    def report(self, kind: str, model: str) -> ComponentReport:
        """How it stands, for planners."""
        each = median(self._seconds) if self._seconds else 0.0
        count = len(self._waiting) + self._running
        cost = CostReport(fixed=each, known=bool(self._seconds))
        return ComponentReport(kind=kind, model=model, cost=cost, seconds=count * each, count=count)

    def close(self) -> None:
        """Let the running batch finish; nothing new may be submitted."""
        self._thread.shutdown(wait=True)

    async def leave(self) -> None:
        """As `close`, without holding up the event loop."""
        await asyncio.to_thread(self.close)
