"""Runs nodes: write, then advance, then publish, then acknowledge. In that order, always, here.

A crash anywhere in between loses nothing: unacknowledged work is delivered again, the record says
whether it is still wanted, and publishing twice is harmless (see `shared/jobs/advance.py`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from shared import subjects
from shared.bus.base import Bus
from shared.config import Settings
from shared.errors import ArenaFull, HandleLost, InvalidRequest, JobNotFound
from shared.jobs.advance import (
    CancelRequested,
    Checkpointed,
    DeadlinePassed,
    Event,
    InputsLost,
    NodeFailed,
    NodeFinished,
)
from shared.jobs.graph import Node, NodeKind
from shared.jobs.ledger import Ledger, Page
from shared.jobs.record import Checkpoint, JobRecord, NodeState
from shared.messages import JobSpec, NodeProgress, NodeTask, decode, encode, failure_of
from shared.pull import PullLoop, PullStatistics, Work
from shared.telemetry.metrics import Metrics
from shared.telemetry.nodes import observed
from shared.telemetry.tracing import carry, inject, mark_failed
from shared.tensors.handle import TensorHandle

log = logging.getLogger(__name__)

ROOM_SECONDS: Final = 1.0
"""After this, a node that found its arena full is tried again; that is no failure of the node."""
UNREADABLE_SECONDS: Final = 5.0

Tensors = Mapping[str, TensorHandle]


class Task:
    """One attempt of one node, as its handler sees it."""

    def __init__(self, page: Page, state: NodeState, work: Work, ledger: Ledger) -> None:
        self._page = page
        self._work = work
        self._ledger = ledger
        self.state = state

    @property
    def record(self) -> JobRecord:
        return self._page.record

    @property
    def spec(self) -> JobSpec:
        return self._page.record.spec

    @property
    def job_id(self) -> str:
        return self._page.record.job_id

    @property
    def node(self) -> Node:
        return self.state.node

    @property
    def inputs(self) -> dict[str, TensorHandle]:
        """Outputs of all input nodes, by tensor name."""
        merged: dict[str, TensorHandle] = {}
        for name in self.node.inputs:
            merged.update(self.record.nodes[name].outputs)
        return merged

    def progressed(self) -> None:
        """A sign of life: without one for `stall_seconds`, somebody else gets the work."""
        self._work.progressed()

    async def checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Make `checkpoint` the place to continue from. False: this attempt is not wanted now."""
        event = Checkpointed(self.node.name, self.state.attempt, checkpoint, time.time())
        return await self._ledger.advance(self._page, event)


class Handler(Protocol):
    """What a model service provides. `capacity`: nodes it wants to hold at a time."""

    kind: NodeKind
    models: tuple[str, ...]
    capacity: int

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Do the node's work and write its outputs. Raises `DarkroomError` (retryable or not),
        above all `HandleLost` for an input that cannot be read. May be cancelled anywhere."""
        ...

    def discard(self, outputs: Tensors) -> None:
        """Free outputs that came too late to be wanted."""
        ...


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    cancelled: bool = False


class Worker:
    """Pulls the nodes of one handler and runs them."""

    def __init__(
        self, bus: Bus, handler: Handler, settings: Settings, metrics: Metrics, name: str
    ) -> None:
        self._bus = bus
        self._handler = handler
        self._settings = settings
        self._metrics = metrics
        self._name = name
        self._ledger = Ledger(bus, inject, metrics.job_ended)
        self._running: dict[str, list[_Running]] = {}
        self._loop: PullLoop | None = None

    def statistics(self) -> PullStatistics:
        if self._loop is None:
            return PullStatistics(0, self._handler.capacity, 0, 0)
        return self._loop.statistics()

    def __repr__(self) -> str:
        return f"<Worker {self._name} {self._handler.kind} {self._loop!r}>"

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Until `stop`. `ready` is called once work can arrive."""
        consumers = [
            await self._bus.consumer(
                subjects.WORK,
                subjects.work_consumer(self._handler.kind, model, service_class),
                subjects.work_filter(self._handler.kind, model, service_class),
                self._settings.ack_wait,
            )
            for service_class in subjects.CLASSES
            for model in self._handler.models
        ]
        self._loop = PullLoop(
            consumers,
            self._handle,
            capacity=self._handler.capacity,
            ack_wait=self._settings.ack_wait,
            stall_seconds=self._settings.stall_seconds,
            drain_seconds=self._settings.drain_seconds,
            poll_seconds=self._settings.poll_seconds,
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

    def _cancel(self, job_id: str) -> None:
        for running in self._running.get(job_id, ()):
            if not running.cancelled:  # a second one would interrupt the clearing up
                running.cancelled = True
                running.task.cancel()

    async def _handle(self, work: Work) -> None:
        """Run the node if it is still wanted, and acknowledge it if that settled the matter."""
        try:
            message = decode(work.delivery.data, NodeTask)
        except InvalidRequest as error:
            log.warning("dropped %s, which is no task: %s", work.delivery.subject, error)
            await work.delivery.ack()
            return
        try:
            page = await self._ledger.load(message.job_id)
        except JobNotFound:
            await work.delivery.ack()
            return
        except InvalidRequest as error:
            log.error("the record of job %s cannot be read: %s", message.job_id, error)
            await work.delivery.retry(UNREADABLE_SECONDS)  # perhaps a newer version can read it
            return
        state = page.record.nodes.get(message.node)
        if (
            page.record.ended
            or state is None
            or state.status != "ready"
            or state.attempt != message.attempt
        ):
            with carry(work.delivery.headers):
                await self._ledger.publish_outstanding(page)
            await work.delivery.ack()
            return
        await self._run_wanted(Task(page, state, work, self._ledger), page, work)

    async def _run_wanted(self, task: Task, page: Page, work: Work) -> None:
        current = asyncio.current_task()
        assert current is not None
        running = _Running(current)
        self._running.setdefault(task.job_id, []).append(running)
        event: Event | None = None
        try:
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
                event = await self._attempt(task)
                await self._settle(task, page, event)
                await work.delivery.ack()
        except ArenaFull as error:
            log.warning("%s waits for room: %s", task.node.name, error)
            await work.delivery.retry(ROOM_SECONDS)
        except asyncio.CancelledError:
            if not running.cancelled:  # the process is leaving: somebody else shall have it at once
                await work.delivery.retry(0.0)
                raise
            current.uncancel()
            if isinstance(event, NodeFinished):
                self._handler.discard(event.outputs)
            await self._ledger.advance(page, CancelRequested(time.time()))
            await work.delivery.ack()
        finally:
            self._forget(task.job_id, running)

    async def _attempt(self, task: Task) -> Event:
        """Run the handler, and say what came of it. Raises `ArenaFull`, which is
        no failure of the node: it is tried again later, from its checkpoint if it has one."""
        name, attempt, started = task.node.name, task.state.attempt, time.time()
        deadline = task.spec.deadline
        if deadline is not None and deadline <= started:
            return DeadlinePassed(started)
        await self._tell(task, "started", started)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - started) as limit:
                outputs = await self._handler.run(task)
        except ArenaFull:
            raise
        except HandleLost as lost:
            log.warning("an input is lost, and will be made again: %s", lost)
            mark_failed(lost)
            return InputsLost(name, attempt, lost.fields["handle"], failure_of(lost), time.time())
        except Exception as error:
            if limit.expired():
                return DeadlinePassed(time.time())
            log.exception("attempt %d of %s failed", attempt, name)
            mark_failed(error)
            return NodeFailed(name, attempt, failure_of(error), time.time())
        return NodeFinished(name, attempt, outputs, self._name, started, time.time())

    async def _settle(self, task: Task, page: Page, event: Event) -> None:
        """Advance the record; what it does not want any more is freed."""
        accepted = await self._ledger.advance(page, event)
        if isinstance(event, NodeFinished):
            if accepted:
                await self._tell(task, "finished", event.at)
            else:
                self._handler.discard(event.outputs)

    async def _tell(self, task: Task, state: Literal["started", "finished"], at: float) -> None:
        progress = NodeProgress(
            job_id=task.job_id,
            node=task.node.name,
            kind=task.node.kind,
            state=state,
            at=at,
            worker=self._name,
        )
        await self._bus.publish(subjects.event(task.job_id), encode(progress))

    def _forget(self, job_id: str, running: _Running) -> None:
        tasks = self._running[job_id]
        tasks.remove(running)
        if not tasks:
            del self._running[job_id]
