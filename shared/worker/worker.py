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
from shared.bus.readiness import Refusal
from shared.errors import ArenaFull, HandedOver, InvalidRequest, JobNotFound
from shared.host.crash_points import reached
from shared.jobs.events import CancelRequested, Event, NodeFinished
from shared.jobs.record_store import RecordStore
from shared.messages import NodeTask, decode
from shared.service_classes import CLASSES, URGENT
from shared.telemetry.nodes import observed
from shared.telemetry.tracing import NodeAttempt, carry, inject
from shared.tensors.transport import Transport
from shared.worker.attempt import Attempts
from shared.worker.context import Context
from shared.worker.exclusive import ExclusiveLock
from shared.worker.pull import Puller, PullLoop, PullStatistics, Source, Work, end_stalled
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
        context: Context,
        handler: Handler,
        transport: Transport,
        *,
        on_stall: Callable[[str], None] = end_stalled,
        exclusive_lock: ExclusiveLock | None = None,
    ) -> None:
        """`transport`: into which outputs are written. `on_stall`: see `Puller`.
        `exclusive_lock`: what it has in common with the other workers of the process, so that a
        node which may end the process runs beside none of theirs either."""
        self._context = context
        self._handler = handler
        self._transport = transport
        self._on_stall = on_stall
        self._records = RecordStore(context.bus, inject, context.metrics.job_ended)
        self._running: dict[str, list[_Running]] = {}
        self._loop: PullLoop | None = None
        self._queues: dict[str, tuple[Source, ...]] = {}
        """Of each model, in the order of the classes."""
        self._attempts = Attempts(
            context.bus, handler, context.name, exclusive_lock or ExclusiveLock()
        )

    def statistics(self) -> PullStatistics:
        if self._loop is None:
            return PullStatistics(0, self._handler.capacity, 0, 0)
        return self._loop.statistics()

    def refusal(self) -> Refusal | None:
        """See `PullLoop.refusal`."""
        return None if self._loop is None else self._loop.refusal()

    def __repr__(self) -> str:
        return f"<Worker {self._context.name} {self._handler.kind} {self._loop!r}>"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Until `stop`. `ready` is called once work can arrive. Raises `MemoryBudgetExceeded` if
        none ever could."""
        context, models = self._context, ", ".join(self._handler.models)
        context.budget.refuse_unreachable(f"{context.name} with {models} and no work in hand")
        puller = Puller(
            handle=self._handle,
            decline=self._decline,
            drain=self._handler.drain,
            refusal=context.budget.refusal,
            on_stall=self._on_stall,
            load=self._handler.load,
        )
        for model in self._handler.models:
            await self.add(model)
        self._loop = PullLoop(self._sources(), context.settings, puller)
        async with (
            context.bus.subscribe(subjects.ALL_CANCELS) as cancels,
            asyncio.TaskGroup() as group,
        ):

            async def listen() -> None:
                async for message in cancels:
                    self._cancel(subjects.job_of(message.subject))

            listener = group.create_task(listen())
            ready()
            await self._loop.run(stop)
            listener.cancel()

    async def add(self, model: str) -> None:
        """Pull nodes of `model`, too, which the handler holds now."""
        if model not in self._queues:
            self._queues[model] = await self._queues_of(model)
            self._pull()

    async def remove(self, model: str) -> None:
        """Pull no more nodes of `model`, and return when none is in hand: what the handler does not
        hand over or finish by then is cancelled after `drain_seconds`, and goes on elsewhere."""
        gone = self._queues.pop(model, ())
        self._pull()
        if self._loop is not None:
            await self._loop.let_go(gone, partial(self._handler.let_go, model))

    def _pull(self) -> None:
        if self._loop is not None:
            self._loop.pull_from(self._sources())

    def _sources(self) -> list[Source]:
        """The queues of all models and classes, the most urgent first."""
        return [source for each in zip(*self._queues.values(), strict=True) for source in each]

    async def _queues_of(self, model: str) -> tuple[Source, ...]:
        capacity, ack_wait = self._handler.capacity, self._context.settings.ack_wait
        sources: list[Source] = []
        for service_class in CLASSES:
            urgent = service_class == URGENT
            size = capacity + (self._handler.burst_capacity if urgent else 0)
            has_capacity = _always if urgent else self._handler.has_capacity
            name = subjects.work_consumer(self._handler.kind, model, service_class)
            queue = subjects.work_filter(self._handler.kind, model, service_class)
            consumer = await self._context.bus.consumer(subjects.WORK, name, queue, ack_wait)
            sources.append(Source(consumer, size, has_capacity))
        return tuple(sources)

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
        return Task(revisioned, state, work, self._records, self._transport)

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
            attempt = NodeAttempt(
                job_id=task.job_id,
                node=task.node.name,
                kind=task.node.kind,
                model=task.node.model,
                attempt=task.state.attempt,
                headers=work.delivery.headers,
                ready_at=task.state.ready_at,
            )
            with observed(self._context.metrics, attempt):
                event = await self._attempts.run(task)
                await retry_until_written(
                    partial(self._attempts.settle, task, event), task.progressed
                )
                await retry_until_written(partial(self._acknowledge, task, work), task.progressed)
        except ArenaFull as error:
            log.warning("%s waits for capacity: %s", task.node.name, error)
            self._context.metrics.refused(error.code)
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
                task.discard(event.outputs)
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
