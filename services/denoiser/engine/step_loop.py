"""The step loop: one thread that takes the steps `StepQueue` decides on, and says what happened.

It knows nothing of asyncio. The lock is held while the queue changes, never while a tensor moves or
the network computes: who submits a row in the event loop waits for neither.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from services.denoiser.engine.events import EngineStatistics, EngineStopped, Event, Failed
from services.denoiser.engine.executor import Errand, StepExecutor
from services.denoiser.engine.slot import Slot
from services.denoiser.engine.step_queue import Decision, StepQueue
from services.denoiser.forward.predictors import Predictor
from services.denoiser.rows.row import Row
from shared.errors import DeadlineExceeded, QueueFull
from shared.models.contracts.network import Network
from shared.policy.checkpoint_interval import NEVER, Interval
from shared.policy.cost_model import CostModel
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits


@dataclass(frozen=True, slots=True, eq=False)
class _Idle:
    """An errand for the time in which there is nothing else to do."""

    errand: Errand
    answer: Future[torch.Tensor]


class StepLoop:
    """Rows go in by `submit` and come out through `deliver`, which is called on the loop's thread
    with all events of a step at once. `crashed` is called if the thread ends by an error."""

    def __init__(
        self,
        network: Network,
        limits: Limits,
        cost: CostModel,
        deliver: Callable[[Sequence[Event]], object],
        crashed: Callable[[BaseException], object],
        predictors: Sequence[Predictor] = (),
    ) -> None:
        """`predictors`: see `StepExecutor`."""
        self._executor = StepExecutor(network, cost, predictors, about_to=self._tell)
        for predictor in predictors:
            predictor.attach(self._wake)
        self._network = network
        self._deliver, self._crashed = deliver, crashed
        self._untold: list[Event] = []
        self._changed = threading.Condition()
        # Under `_changed`:
        self._queue = StepQueue(limits)
        self._idle: _Idle | None = None
        # A daemon, so that a process whose event loop died is not kept alive by it.
        self._thread = threading.Thread(target=self._run, name="denoiser-steps", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the running step: every row left is checkpointed and fails `EngineStopped`."""
        with self._changed:
            self._queue.stop()
            self._changed.notify_all()
        self._thread.join()

    def hold(self) -> None:
        """Return when no row is in a step; until `release`, none takes one but `alone`. Since the
        last `release` the others have taken a step, if there were any."""
        with self._changed:
            self._queue.hold()
            self._changed.wait_for(lambda: self._queue.at_rest)

    def release(self) -> None:
        with self._changed:
            self._queue.release()
            self._changed.notify_all()

    def submit(self, row: Row, interval: Interval = NEVER, alone: bool = False) -> int:
        """Let `row` join at the next step boundary; returns its ticket. `alone`: it takes one step,
        by itself, and is let go.

        Raises `QueueFull` when the waiting room is full, `EngineStopped` when the thread ended."""
        with self._changed:
            ticket = self._queue.submit(row, interval, alone)
            self._changed.notify_all()
            return ticket

    def withdraw(self, ticket: int) -> None:
        """Let the row go, at the latest at the next step boundary, without an event."""
        with self._changed:
            self._queue.withdraw(ticket)
            self._changed.notify_all()

    def change(self, row: Row, change: Callable[[Row], None]) -> None:
        """Apply `change` to `row`, in the calling thread; the step that runs is not affected."""
        with self._changed:
            change(row)
            self._changed.notify_all()

    def when_idle(self, errand: Errand) -> Future[torch.Tensor]:
        """The result of `errand`. Raises `QueueFull` if there is anything else to do,
        `EngineStopped` when the thread ended."""
        with self._changed:
            self._queue.check_running()
            if self._queue or self._idle is not None:
                raise QueueFull("the denoiser's idle time", 0)
            self._idle = _Idle(errand, Future())
            self._changed.notify_all()
            return self._idle.answer

    def rows(self) -> list[RowView]:
        """All that are in hand."""
        with self._changed:
            return self._queue.views(time.time())

    @property
    def cost(self) -> CostModel:
        """As learnt so far."""
        return self._executor.cost

    @property
    def declining(self) -> bool:
        """See `StepQueue.declining`."""
        with self._changed:
            return self._queue.declining

    def statistics(self) -> EngineStatistics:
        executor = self._executor
        taken = executor.taken
        with self._changed:
            counts = self._queue.counts()
        return EngineStatistics(
            rows=counts.admitted,
            waiting=counts.waiting,
            parked=counts.parked,
            parks=counts.parks,
            steps=taken.steps,
            row_steps=taken.rows,
            step_seconds=taken.seconds,
            finished=counts.finished,
            failed=counts.failed,
            features=executor.statistics(),
        )

    def _wake(self) -> None:
        """A row may not be blocked any more."""
        with self._changed:
            self._changed.notify_all()

    # ------------------------------------------------------------------------ on the thread

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                events = self._step(work) if isinstance(work, Decision) else self._run_idle(work)
                with self._changed:
                    self._queue.settle(events)
                self._untold += events
            self._executor.end()
            self._untold += self._leftovers()
            self._tell()
        except BaseException as error:
            with self._changed:
                self._queue.stop()
                self._queue.settle(())
                self._changed.notify_all()
            self._crashed(error)

    def _next(self) -> Decision | _Idle | None:
        """Sleep until there is something to do. None: stop."""
        with self._changed:
            while not self._queue.stopped:
                decision = self._queue.decide(time.time(), self.cost)
                if decision is not None:
                    return decision
                if not self._queue:
                    self._executor.rest()
                    if self._idle is not None:
                        idle, self._idle = self._idle, None
                        self._queue.stepping = True
                        return idle
                self._changed.notify_all()
                self._tell()
                self._changed.wait()
            return None

    def _step(self, decision: Decision) -> list[Event]:
        """Move the rows and take the step."""
        events: list[Event] = [
            Failed(slot.ticket, _too_late(slot.row)) for slot in decision.infeasible
        ]
        events += _move(decision.leaves, torch.device("cpu"))
        unmoved = _move(decision.joins, self._network.device)
        failed = {event.ticket for event in unmoved}
        events += unmoved
        runs = [slot for slot in decision.runs if slot.ticket not in failed]
        if runs:
            events += self._executor.advance(runs, decision.admitted, decision.lonely)
        return events

    def _run_idle(self, idle: _Idle) -> list[Event]:
        """Run an errand, unless who asked for it is gone."""
        if idle.answer.set_running_or_notify_cancel():
            try:
                idle.answer.set_result(self._executor.run(idle.errand))
            except Exception as error:
                idle.answer.set_exception(error)
        return []

    def _tell(self) -> None:
        """Just before a step, or a rest: while the network computes, the event loop has the
        interpreter for itself. A moment earlier they would hinder each other."""
        untold, self._untold = self._untold, []
        if untold:
            self._deliver(untold)

    def _leftovers(self) -> list[Event]:
        with self._changed:
            idle, self._idle = self._idle, None
            slots = self._queue.clear()
            self._changed.notify_all()
        if idle is not None and idle.answer.set_running_or_notify_cancel():
            idle.answer.set_exception(EngineStopped("the denoising engine stopped"))
        events: list[Event] = []
        for slot in slots:
            events += slot.last_checkpoint()
            stopped = EngineStopped("the denoising engine stopped before the row was finished")
            events.append(Failed(slot.ticket, stopped))
        return events


def _move(slots: Sequence[Slot], device: torch.device) -> list[Failed]:
    """Bring the rows' tensors to `device`; a row for which there is no memory fails alone."""
    failed = []
    for slot in slots:
        try:
            slot.row.move(device)
        except torch.OutOfMemoryError as error:
            failed.append(Failed(slot.ticket, error))
    return failed


def _too_late(row: Row) -> DeadlineExceeded:
    assert row.deadline is not None
    return DeadlineExceeded(row.job_id, row.deadline)
