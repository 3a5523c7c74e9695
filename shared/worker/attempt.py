"""One attempt of a node: the handler runs, and the record learns what came of it."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from shared import subjects
from shared.bus.base import Bus
from shared.errors import (
    ArenaFull,
    BusUnavailable,
    DeadlineExceeded,
    HandedOver,
    HandleLost,
    NoLongerWanted,
)
from shared.jobs.events import DeadlinePassed, Event, InputsLost, NodeFailed, NodeFinished
from shared.messages import NodeProgress, encode, failure_of
from shared.telemetry.tracing import mark_failed
from shared.worker.exclusive import ExclusiveLock
from shared.worker.task import Handler, Task

log = logging.getLogger(__name__)


class Attempts:
    """Those that a process makes with one handler. `name`: the process, as progress tells it;
    `exclusive_lock`: in which all of the process' nodes run."""

    def __init__(
        self, bus: Bus, handler: Handler, name: str, exclusive_lock: ExclusiveLock
    ) -> None:
        self._bus = bus
        self._handler = handler
        self._name = name
        self._exclusive_lock = exclusive_lock

    async def run(self, task: Task) -> Event:
        """Run the handler, and say what came of it. Raises `ArenaFull`, which is no failure of the
        node (it is tried again later, from its checkpoint if it has one) unless no arena would be
        large enough, and `HandedOver`."""
        name, attempt = task.node.name, task.state.attempt
        started, deadline = time.time(), task.spec.deadline
        if deadline is not None and deadline <= started:
            return DeadlinePassed(started)
        await self._tell(task, "started", started)
        try:
            async with (
                asyncio.timeout(None if deadline is None else deadline - started) as limit,
                self._beside_others(task),
            ):
                _check_inputs(task)
                outputs = await self._handler.run(task)
        except HandedOver:
            raise
        except DeadlineExceeded:
            return DeadlinePassed(time.time())
        except HandleLost as lost:
            log.warning("an input is lost, and will be made again: %s", lost)
            mark_failed(lost)
            failure, handle = failure_of(lost), lost.fields["handle"]
            return InputsLost(name, attempt, handle, failure, time.time(), *task.lease)
        except Exception as error:
            if isinstance(error, ArenaFull) and not error.for_good:
                raise
            if limit.expired():
                return DeadlinePassed(time.time())
            log.exception("attempt %d of %s failed", attempt, name)
            mark_failed(error)
            return NodeFailed(name, attempt, failure_of(error), time.time(), *task.lease)
        ended = time.time()
        return NodeFinished(
            name,
            attempt,
            outputs,
            self._name,
            started,
            ended,
            *task.lease,
            approximations=tuple(sorted(task.approximations)),
            warnings=tuple(sorted(task.warnings)),
            text_tokens=task.text_tokens,
        )

    @asynccontextmanager
    async def _beside_others(self, task: Task) -> AsyncIterator[None]:
        """Run with others, but a suspect alone: so what ends the process is known."""
        if self._handler.isolates:
            yield
        elif not task.suspect:
            async with self._exclusive_lock.together():
                yield
        else:
            async with self._exclusive_lock.alone():
                if not await task.alone():
                    raise NoLongerWanted(task.job_id, task.node.name)
                yield

    async def settle(self, task: Task, event: Event) -> None:
        """Advance the record by `event`; what it does not want any more is freed."""
        if task.unclaimed and isinstance(event, NodeFailed | InputsLost):
            await task.claim()  # it failed before its turn came
            event = dataclasses.replace(event, lease=task.state.lease)
        ours = not task.unclaimed or isinstance(event, DeadlinePassed)
        accepted = ours and await task.advance(event)
        if isinstance(event, NodeFinished):
            if accepted:
                await self._tell(task, "finished", event.at)
            else:
                task.discard(event.outputs)

    async def _tell(self, task: Task, state: Literal["started", "finished"], at: float) -> None:
        progress = NodeProgress(
            job_id=task.job_id,
            node=task.node.name,
            kind=task.node.kind,
            state=state,
            at=at,
            worker=self._name,
        )
        with contextlib.suppress(BusUnavailable):  # events are lossy
            await self._bus.publish(subjects.event(task.job_id), encode(progress))


def _check_inputs(task: Task) -> None:
    """Raises `HandleLost` if a node whose output is needed runs again, for somebody who lost it."""
    for name in task.node.inputs:
        if task.record.nodes[name].status != "done":
            raise HandleLost(name, f"{name} runs again")
