"""Runs nodes: write, then advance, then publish, then acknowledge. In that order, always, here.

A crash anywhere in between loses nothing: unacknowledged work is delivered again, the record says
whether it is still wanted, and publishing twice is harmless (see `shared/jobs/advance.py`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from shared import subjects
from shared.bus.base import Bus
from shared.config import Settings
from shared.errors import HandleLost, InvalidRequest, JobNotFound
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

    def producers_of(self, lost: str) -> tuple[str, ...]:
        """Names of the input nodes whose outputs contain the handle named `lost`."""
        return tuple(
            name
            for name in self.node.inputs
            if any(h.name == lost for h in self.record.nodes[name].outputs.values())
        )


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
            running.cancelled = True
            running.task.cancel()

    async def _handle(self, work: Work) -> None:
        """Run the node if it is still wanted, and acknowledge it if that settled the matter."""
        try:
            message = decode(work.delivery.data, NodeTask)
            page = await self._ledger.load(message.job_id)
        except (InvalidRequest, JobNotFound) as error:
            log.warning("dropped %s: %s", work.delivery.subject, error)
            await work.delivery.ack()
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
        deadline = task.spec.deadline
        if deadline is not None and deadline < time.time():
            await self._ledger.advance(page, DeadlinePassed(time.time()))
            await work.delivery.ack()
            return
        current = asyncio.current_task()
        assert current is not None
        running = _Running(current)
        self._running.setdefault(task.job_id, []).append(running)
        outputs: dict[str, TensorHandle] = {}
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
                if isinstance(event, NodeFinished):
                    outputs = event.outputs
                if await self._ledger.advance(page, event):
                    outputs = {}
                if isinstance(event, NodeFinished):
                    await self._tell(task, "finished", event.at)
                await work.delivery.ack()
        except asyncio.CancelledError:
            if running.cancelled:
                current.uncancel()
                await self._ledger.advance(page, CancelRequested(time.time()))
                await work.delivery.ack()
            else:  # the process is leaving: somebody else shall have the work at once
                await work.delivery.retry(0.0)
                raise
        finally:
            self._handler.discard(outputs)
            self._forget(task.job_id, running)

    async def _attempt(self, task: Task) -> Event:
        """Run the handler, and say what came of it."""
        name, attempt, started = task.node.name, task.state.attempt, time.time()
        await self._tell(task, "started", started)
        try:
            outputs = await self._handler.run(task)
        except HandleLost as lost:
            producers = task.producers_of(lost.fields["handle"]) or task.node.inputs
            log.warning("%s; %s runs again", lost, ", ".join(producers))
            mark_failed(lost)
            return InputsLost(name, attempt, producers, failure_of(lost), time.time())
        except Exception as error:
            log.exception("attempt %d of %s failed", attempt, name)
            mark_failed(error)
            return NodeFailed(name, attempt, failure_of(error), time.time())
        return NodeFinished(name, attempt, outputs, self._name, started, time.time())

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
