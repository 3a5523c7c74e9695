"""Runs nodes: write, then advance, then publish, then acknowledge. In that order, always, here.

A crash anywhere in between loses nothing: unacknowledged work is delivered again, the record says
whether it is still wanted, and publishing twice is harmless (see `shared/jobs/advance.py`). Nothing
is acknowledged that the record still has to be done: the delivery may be somebody else's by now.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from shared import subjects
from shared.bus.base import Bus
from shared.bus.readiness import Refusal
from shared.config import Settings
from shared.errors import ArenaFull, HandedOver, InvalidRequest, JobNotFound
from shared.host.crash_points import reached
from shared.jobs.events import CancelRequested, Event, NodeFinished
from shared.jobs.record_store import RecordStore
from shared.messages import NodeTask, decode
from shared.telemetry.metrics import Metrics
from shared.telemetry.nodes import observed
from shared.telemetry.tracing import carry, inject
from shared.worker.attempt import Attempts
from shared.worker.exclusive import ExclusiveLock
from shared.worker.memory_budget import MemoryBudget
from shared.worker.pull import PullLoop, PullStatistics, Source, Work, end_stalled, number
from shared.worker.task import Handler, Task, retry_until_written

log = logging.getLogger(__name__)

CAPACITY_RETRY_SECONDS: Final = 1.0
"""After this, a node that found its arena full is tried again; that is no failure of the node."""
UNREADABLE_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    cancelled: bool = False


class Worker:
    """Pulls the nodes of one handler and runs them."""

    def __init__(
        self,
        bus: Bus,
        handler: Handler,
        settings: Settings,
        metrics: Metrics,
        name: str,
        budget: MemoryBudget | None = None,
        on_stall: Callable[[str], None] = end_stalled,
        load: Callable[[int], int] = number,
        exclusive_lock: ExclusiveLock | None = None,
    ) -> None:
        """`budget`: over it, nothing is taken. `on_stall`, `load`: see `PullLoop`.
        `exclusive_lock`: what it has in common with the other workers of the process, so that a
        node which may end the process runs beside none of theirs either."""
        self._bus = bus
        self._handler = handler
        self._settings = settings
        self._metrics = metrics
        self._name = name
        self._budget = budget or MemoryBudget(0)
        self._on_stall = on_stall
        self._load = load
        self._records = RecordStore(bus, inject, metrics.job_ended)
        self._running: dict[str, list[_Running]] = {}
        self._loop: PullLoop | None = None
        self._attempts = Attempts(bus, handler, name, exclusive_lock or ExclusiveLock())

    def statistics(self) -> PullStatistics:
        if self._loop is None:
            return PullStatistics(0, self._handler.capacity, 0, 0)
        return self._loop.statistics()

    def refusal(self) -> Refusal | None:
        """See `PullLoop.refusal`."""
        return None if self._loop is None else self._loop.refusal()

    def __repr__(self) -> str:
        return f"<Worker {self._name} {self._handler.kind} {self._loop!r}>"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Until `stop`. `ready` is called once work can arrive. Raises `MemoryBudgetExceeded` if
        none ever could."""
        models = ", ".join(self._handler.models)
        self._budget.refuse_unreachable(f"{self._name} with {models} and no work in hand")
        self._loop = PullLoop(
            await self._sources(),
            self._handle,
            ack_wait=self._settings.ack_wait,
            stall_seconds=self._settings.stall_seconds,
            drain_seconds=self._settings.drain_seconds,
            poll_seconds=self._settings.poll_seconds,
            decline=self._decline,
            drain=self._handler.drain,
            refusal=self._budget.refusal,
            on_stall=self._on_stall,
            load=self._load,
        )
        async with (
            self._bus.subscribe(subjects.ALL_CANCELS) as cancels,
            asyncio.TaskGroup() as group,
        ):

            async def listen() -> None:
                async for message in cancels:
                    self._cancel(subjects.job_of(message.subject))

            listener = group.create_task(listen())
            ready()
            await self._loop.run(stop)
            listener.cancel()

    async def _sources(self) -> list[Source]:
        """The queues of all models and classes, the most urgent first."""
        capacity, ack_wait = self._handler.capacity, self._settings.ack_wait
        sources: list[Source] = []
        for service_class in subjects.CLASSES:
            urgent = service_class == "interactive"
            size = capacity + (self._handler.burst_capacity if urgent else 0)
            has_capacity = _always if urgent else self._handler.has_capacity
            for model in self._handler.models:
                name = subjects.work_consumer(self._handler.kind, model, service_class)
                queue = subjects.work_filter(self._handler.kind, model, service_class)
                consumer = await self._bus.consumer(subjects.WORK, name, queue, ack_wait)
                sources.append(Source(consumer, size, has_capacity))
        return sources

    def _cancel(self, job_id: str) -> None:
        for running in self._running.get(job_id, ()):
            if not running.cancelled:  # a second one would interrupt the clearing up
                running.cancelled = True
                running.task.cancel()

    async def _handle(self, work: Work) -> None:
        """Run the node if it is still wanted, and acknowledge it if that settled the matter."""
        task = await self._open(work)
        if task is not None:
            await self._run_wanted(task, work)

    async def _decline(self, work: Work) -> None:
        """Give back what came after we were asked to leave."""
        task = await self._open(work)
        if task is not None:
            await task.give_back()

    async def _open(self, work: Work) -> Task | None:
        """The task that is delivered, if it is still wanted; otherwise it is acknowledged here."""
        try:
            message = decode(work.delivery.data, NodeTask)
            if message.job_id != subjects.job_of_work(work.delivery.subject):
                raise InvalidRequest("job_id", message.job_id, "the job id of its subject")
        except InvalidRequest as error:
            log.warning("dropped %s, which is no task: %s", work.delivery.subject, error)
            await work.delivery.ack()
            return None
        try:
            revisioned = await self._records.load(message.job_id)
        except JobNotFound:
            await work.delivery.ack()  # it was written before the task was, and has expired
            return None
        except InvalidRequest as error:
            log.error("the record of job %s cannot be read: %s", message.job_id, error)
            await work.delivery.retry(UNREADABLE_SECONDS)  # perhaps a newer version can read it
            return None
        state = revisioned.record.nodes.get(message.node)
        if (
            revisioned.record.ended
            or state is None
            or state.status != "ready"
            or state.attempt != message.attempt
        ):
            with carry(work.delivery.headers):
                await self._records.publish_outstanding(revisioned)
            await work.delivery.ack()
            return None
        return Task(revisioned, state, work, self._records)

    async def _acknowledge(self, task: Task, work: Work) -> None:
        """Unless somebody still has to do it: then the delivery is theirs, under another lease."""
        if task.wanted:
            log.warning("%s of job %s is another's by now", task.node.name, task.job_id)
            return
        reached("ack.before")
        await work.delivery.ack()
        reached("ack.after")

    async def _run_wanted(self, task: Task, work: Work) -> None:
        current = asyncio.current_task()
        assert current is not None
        running = _Running(current)
        self._running.setdefault(task.job_id, []).append(running)
        event: Event | None = None
        try:
            if task.unclaimed and not task.suspect and not await task.claim():
                await self._acknowledge(task, work)
                return
            with observed(
                self._metrics,
                job_id=task.job_id,
                node=task.node.name,
                kind=task.node.kind,
                model=task.node.model,
                attempt=task.state.attempt,
                headers=work.delivery.headers,
                ready_at=task.state.ready_at,
            ):
                event = await self._attempts.run(task)
                await retry_until_written(
                    partial(self._attempts.settle, task, event), task.progressed
                )
                await retry_until_written(partial(self._acknowledge, task, work), task.progressed)
        except ArenaFull as error:
            log.warning("%s waits for capacity: %s", task.node.name, error)
            self._metrics.refused(error.code)
            await retry_until_written(
                partial(task.give_back, CAPACITY_RETRY_SECONDS), task.progressed
            )
        except HandedOver:
            await task.give_back()
        except asyncio.CancelledError:
            if not running.cancelled:  # the process is leaving: somebody else shall have it at once
                await task.give_back()
                raise
            current.uncancel()
            if isinstance(event, NodeFinished):
                self._handler.discard(event.outputs)
            await task.advance(CancelRequested(time.time()))
            await self._acknowledge(task, work)
        finally:
            self._forget(task.job_id, running)

    def _forget(self, job_id: str, running: _Running) -> None:
        tasks = self._running[job_id]
        tasks.remove(running)
        if not tasks:
            del self._running[job_id]


def _always() -> bool:
    return True
