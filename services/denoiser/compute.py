"""The compute thread: plans a step, takes it, says what happened. It knows nothing of asyncio."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch

from services.denoiser.cost import CostModel
from services.denoiser.entry import Entry
from services.denoiser.interval import NEVER, Interval
from services.denoiser.outcomes import (
    EngineStatistics,
    EngineStopped,
    Failed,
    Finished,
    Outcome,
    Rested,
)
from services.denoiser.plan_step import Limits, Turn, plan_step
from services.denoiser.row import Row
from services.denoiser.sharing import AskHalf, Half, Sharing
from services.denoiser.steering import Ask, Steering
from services.denoiser.stepper import Stepper
from services.denoiser.views import RowView
from shared.adapters.bank import Use
from shared.errors import DeadlineExceeded, QueueFull
from shared.families.network import Network


class Compute:
    """Rows go in by `submit` and come out through `deliver`, which is called on the compute thread
    with all outcomes of a step at once. `crashed` is called if the thread ends by an error."""

    def __init__(
        self,
        network: Network,
        limits: Limits,
        cost: CostModel,
        deliver: Callable[[Sequence[Outcome]], object],
        crashed: Callable[[BaseException], object],
        ask: Ask | None = None,
        ask_half: AskHalf | None = None,
    ) -> None:
        """`ask`: how ControlNets are asked; `ask_half`: how other denoisers are. None: there are
        none."""
        self._steering = None if ask is None else Steering(ask, self._wake)
        sharing = None if ask_half is None else Sharing(ask_half)
        self._stepper = Stepper(network, cost, self._steering, sharing, about_to=self._tell)
        self._network, self._limits = network, limits
        self._deliver, self._crashed = deliver, crashed
        self._turn = Turn()
        self._news: list[Outcome] = []
        """What happened and is not told yet."""
        self._given_up: list[Entry] = []
        """Given up by the last plan, and not yet told."""
        self._changed = threading.Condition()
        # Under `_changed`: entries by ticket, both in order of arrival; whether to end; whether a
        # step runs; whether only rows that are alone may step, but for one step `_owed` to others.
        self._waiting: dict[int, Entry] = {}
        self._admitted: dict[int, Entry] = {}
        self._stopping = self._stepping = self._held = self._owed = False
        self._half: tuple[Half, Future[torch.Tensor]] | None = None
        """To be computed for another denoiser, while there is nothing else to do."""
        self._next_ticket = 0
        self._finished = self._failed = self._parks = 0
        # A daemon, so that a process whose event loop died is not kept alive by it.
        self._thread = threading.Thread(target=self._run, name="denoiser-steps", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the running step: every row left is checkpointed and fails `EngineStopped`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def hold(self) -> None:
        """Return when no row is in a step; until `release`, none takes one but `alone`. Since the
        last `release` the others have taken a step, if there were any."""
        with self._changed:
            self._held = True
            self._changed.wait_for(self._at_rest)

    def release(self) -> None:
        with self._changed:
            self._held, self._owed = False, True
            self._changed.notify_all()

    def _at_rest(self) -> bool:
        owed = self._owed and not self._stopping
        return not self._held or not (self._stepping or owed)

    def submit(self, row: Row, interval: Interval = NEVER, alone: bool = False) -> int:
        """Let `row` join at the next step boundary; returns its ticket. `alone`: it takes one step,
        by itself, and is let go.

        Raises `QueueFull` when the waiting room is full, `EngineStopped` when the thread ended."""
        with self._changed:
            if self._stopping:
                raise EngineStopped("the denoising engine is not running")
            if len(self._waiting) >= self._limits.max_waiting:
                raise QueueFull("the denoiser's waiting room", self._limits.max_waiting)
            ticket = self._next_ticket
            self._next_ticket += 1
            self._waiting[ticket] = Entry(ticket, row, interval, alone)
            self._changed.notify_all()
            return ticket

    def assist(self, half: Half) -> Future[torch.Tensor]:
        """The network's answer to one image of another denoiser's step. Raises `QueueFull` if there
        is anything else to do, `EngineStopped` when the thread ended."""
        with self._changed:
            if self._stopping:
                raise EngineStopped("the denoising engine is not running")
            if self._admitted or self._waiting or self._half is not None:
                raise QueueFull("the denoiser's room for halves of others' steps", 0)
            answer: Future[torch.Tensor] = Future()
            self._half = half, answer
            self._changed.notify_all()
            return answer

    def adapt(self, row: Row, adapters: tuple[Use, ...], complete: bool) -> None:
        """From the next step boundary on `row` has `adapters`; `complete`: those are all it
        waits for."""
        with self._changed:
            row.adapters = adapters
            row.late = None if complete else row.late
            self._changed.notify_all()

    def _wake(self) -> None:
        """A row may not be blocked any more."""
        with self._changed:
            self._changed.notify_all()

    def rows(self) -> list[RowView]:
        """All that are in hand."""
        now, margin = time.time(), self._limits.deadline_margin
        with self._changed:
            entries = [*self._admitted.values(), *self._waiting.values()]
            return [entry.view(now, margin) for entry in entries]

    @property
    def cost(self) -> CostModel:
        """As learnt so far."""
        return self._stepper.cost

    @property
    def declining(self) -> bool:
        """Somebody is kept waiting who has not been in the batch yet, or had to leave it for others
        to be in time."""
        with self._changed:
            return any(entry.is_kept_waiting for entry in self._waiting.values())

    def withdraw(self, ticket: int) -> None:
        """Let the row go, at the latest at the next step boundary, without an outcome."""
        with self._changed:
            self._waiting.pop(ticket, None)
            if ticket in self._admitted:
                self._admitted[ticket].row.cancelled = True
            self._changed.notify_all()

    def statistics(self) -> EngineStatistics:
        steering, stepper = self._steering, self._stepper
        taken = stepper.taken
        with self._changed:
            return EngineStatistics(
                rows=len(self._admitted),
                waiting=len(self._waiting),
                parked=sum(entry.parked for entry in self._waiting.values()),
                parks=self._parks,
                steps=taken.steps,
                row_steps=taken.rows,
                step_seconds=taken.seconds,
                finished=self._finished,
                failed=self._failed,
                shared_steps=stepper.shared,
                halves=stepper.halves,
                control_rounds=0 if steering is None else steering.rounds,
                control_seconds=0.0 if steering is None else steering.seconds,
                control_hops=0.0 if steering is None else steering.hops,
                control_waited=0.0 if steering is None else steering.waited,
                control_message_bytes=0 if steering is None else steering.message_bytes,
                control_tensor_bytes=0 if steering is None else steering.tensor_bytes,
            )

    # ------------------------------------------------------------------------ on the thread

    def _run(self) -> None:
        try:
            while (entries := self._next_step()) is not None:
                self._assist()
                given_up = self._give_up()
                self._settle([*given_up, *(self._advance(entries) if entries else ())])
            self._stepper.end()
            self._news += self._leftovers()
            self._tell()
        except BaseException as error:
            with self._changed:
                self._stopping, self._stepping = True, False
                self._changed.notify_all()
            self._crashed(error)

    def _next_step(self) -> list[Entry] | None:
        """Sleep until there are rows that may run, then say which run now; None: stop."""
        with self._changed:
            self._stepping = False
            while True:
                self._admitted = {k: e for k, e in self._admitted.items() if not e.row.cancelled}
                if self._stopping:
                    return None
                if not self._admitted and not self._waiting:
                    self._stepper.rest()
                    self._owed = False
                    if self._half is not None:
                        self._stepping = True
                        return []
                elif (entries := self._plan()) or self._given_up:
                    self._stepping = True
                    return entries
                self._changed.notify_all()
                self._tell()
                self._changed.wait()

    def _plan(self) -> list[Entry]:
        now, margin = time.time(), self._limits.deadline_margin
        rows = [entry.view(now, margin) for entry in self._admitted.values()]
        waiting = [entry.view(now, margin) for entry in self._waiting.values()]
        held = self._held and not self._owed
        plan = plan_step(rows, waiting, self._limits, self.cost, self._turn, held)
        self._turn = plan.turn
        for ticket in plan.infeasible:
            entry = self._admitted.pop(ticket, None) or self._waiting.pop(ticket)
            self._given_up.append(entry)
        for ticket in plan.leaves:
            entry = self._waiting[ticket] = self._admitted.pop(ticket)
            entry.parked = True
            entry.row.move(torch.device("cpu"))
        self._parks += len(plan.leaves)
        for ticket in plan.joins:
            entry = self._admitted[ticket] = self._waiting.pop(ticket)
            entry.parked = False
            entry.row.move(self._network.device)
        running = [self._admitted[ticket] for ticket in plan.runs]
        if not held:
            self._owed = False
            for entry in (*self._admitted.values(), *self._waiting.values()):
                entry.passed_over += not entry.row.blocked
        for entry in running:
            entry.passed_over = 0
        return running

    def _assist(self) -> None:
        """Compute what another denoiser asked for, if one did."""
        with self._changed:
            asked, self._half = self._half, None
        if asked is None or not asked[1].set_running_or_notify_cancel():
            return  # or who asked is gone, because there is other work
        half, answer = asked
        try:
            answer.set_result(self._stepper.answer(half))
        except Exception as error:
            answer.set_exception(error)

    def _give_up(self) -> list[Outcome]:
        """The rows that cannot be in time."""
        entries, self._given_up = self._given_up, []
        return [Failed(e.ticket, _too_late(e.row)) for e in entries]

    def _advance(self, entries: list[Entry]) -> list[Outcome]:
        """One step of `entries`."""
        admitted = [entry.row for entry in self._admitted.values()]
        lonely = len(admitted) == 1 and not self._waiting and not entries[0].alone
        return self._stepper.advance(entries, admitted, lonely)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Let go of the rows that ended; it is told soon."""
        with self._changed:
            for outcome in outcomes:
                if isinstance(outcome, Finished | Rested | Failed):
                    self._admitted.pop(outcome.ticket, None)
                    self._finished += isinstance(outcome, Finished)
                    self._failed += isinstance(outcome, Failed)
        self._news += outcomes

    def _tell(self) -> None:
        """Just before a step, or a rest: while the network computes, the event loop has the
        interpreter for itself. A moment earlier they would hinder each other."""
        news, self._news = self._news, []
        if news:
            self._deliver(news)

    def _leftovers(self) -> list[Outcome]:
        with self._changed:
            if self._half is not None and self._half[1].set_running_or_notify_cancel():
                self._half[1].set_exception(EngineStopped("the denoising engine stopped"))
            self._half = None
            entries = [*self._given_up, *self._admitted.values(), *self._waiting.values()]
            self._given_up.clear()
            self._admitted.clear()
            self._waiting.clear()
            self._changed.notify_all()
        outcomes: list[Outcome] = []
        for entry in entries:
            outcomes += entry.last_checkpoint()
            stopped = EngineStopped("the denoising engine stopped before the row was finished")
            outcomes.append(Failed(entry.ticket, stopped))
        return outcomes


def _too_late(row: Row) -> DeadlineExceeded:
    assert row.deadline is not None
    return DeadlineExceeded(row.job_id, row.deadline)
