"""The rows that one network has in hand: who waits, who is admitted, who takes the next step.

Each method is one transition. None blocks, reads a clock or touches a tensor: what is to be moved
and stepped is returned, and `StepLoop` does it, outside the lock under which it calls them.

A row that was submitted ends exactly once: with an event that `settle` is given, as `infeasible`
in a decision (of which `settle` is then given the event), by `withdraw`, or by `clear`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from services.denoiser.engine.events import EngineStopped, Event, Failed, Finished, Yielded
from services.denoiser.engine.slot import Slot
from services.denoiser.rows.row import Row
from shared.errors import QueueFull
from shared.policy.checkpoint_interval import Interval
from shared.policy.row_view import RowView, StepCost
from shared.policy.step_scheduler import Limits, RoundRobinState, schedule_step


class Access(Enum):
    """Who may take a step. Between two holds the others take one step, if there are any."""

    SHARED = "everybody"
    OWED = "everybody, and a hold has to wait until one shared step was taken"
    PENDING = "everybody for one step more, then only rows that run alone"
    HELD = "only rows that run alone"


HELD: Final = {Access.SHARED: Access.HELD, Access.OWED: Access.PENDING}
STEPPED: Final = {Access.OWED: Access.SHARED, Access.PENDING: Access.HELD}
"""After a step that everybody might have taken, or while there is nobody to take one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens until the next decision, in this order."""

    infeasible: tuple[Slot, ...]
    """They cannot be in time, and have left the queue."""
    leaves: tuple[Slot, ...]
    """To be moved to the host: they wait again, for others' sake."""
    joins: tuple[Slot, ...]
    """To be moved to the network's device."""
    runs: tuple[Slot, ...]
    """They take the step together. Nobody, if somebody is given up and no other row may step."""
    admitted: tuple[Row, ...]
    lonely: bool
    """The one row that runs has the network to itself, and nobody waits."""


@dataclass(frozen=True, slots=True)
class Counts:
    admitted: int
    waiting: int
    """Parked rows included."""
    parked: int
    """They were admitted, and wait again."""
    parks: int
    """How often a row was parked."""
    finished: int
    failed: int


class StepQueue:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # By ticket, in order of arrival.
        self._waiting: dict[int, Slot] = {}
        self._admitted: dict[int, Slot] = {}
        self._round_robin = RoundRobinState()
        self._access = Access.SHARED
        self._counts = Counts(0, 0, 0, 0, 0, 0)
        self._next_ticket = 0
        self.stopped = False
        """No row is taken any more, and no step is decided on."""
        self.stepping = False
        """A step was decided on and is not settled."""

    def __repr__(self) -> str:
        counts = self.counts()
        return (
            f"<StepQueue {counts.admitted} admitted, {counts.waiting} waiting, {self._access.name}>"
        )

    def __len__(self) -> int:
        return len(self._admitted) + len(self._waiting)

    def submit(self, row: Row, interval: Interval, alone: bool) -> int:
        """Take `row` in to wait; returns its ticket. `alone`: it takes one step by itself, and
        yields. Raises `QueueFull` at the bound, `EngineStopped`."""
        self.check_running()
        if len(self._waiting) >= self._limits.max_waiting:
            raise QueueFull("the denoiser's waiting room", self._limits.max_waiting)
        ticket = self._next_ticket
        self._next_ticket += 1
        self._waiting[ticket] = Slot(ticket, row, interval, alone)
        return ticket

    def withdraw(self, ticket: int) -> None:
        """Let the row go, without an event; an admitted one at the next decision, since it may be
        in a step."""
        self._waiting.pop(ticket, None)
        if ticket in self._admitted:
            self._admitted[ticket].withdrawn = True

    def hold(self) -> None:
        """Only rows that run alone take steps, as soon as `at_rest`."""
        self._access = HELD.get(self._access, self._access)

    def release(self) -> None:
        self._access = Access.OWED

    @property
    def at_rest(self) -> bool:
        """Nothing hinders who holds the queue, or nobody does any more."""
        if self._access is Access.PENDING:
            return self.stopped and not self.stepping
        return self._access is not Access.HELD or not self.stepping

    def stop(self) -> None:
        self.stopped = True

    def check_running(self) -> None:
        """Raise `EngineStopped` after `stop`."""
        if self.stopped:
            raise EngineStopped("the denoising engine is not running")

    def decide(self, now: float, cost: StepCost) -> Decision | None:
        """Who takes the next step, at `now` (Unix seconds). None: nobody may."""
        self._admitted = {k: slot for k, slot in self._admitted.items() if not slot.withdrawn}
        if self.stopped:
            return None
        if not self:
            self._access = STEPPED.get(self._access, self._access)
            return None
        held = self._access is Access.HELD
        grace = self._limits.deadline_grace
        admitted = [slot.view(now, grace) for slot in self._admitted.values()]
        waiting = [slot.view(now, grace) for slot in self._waiting.values()]
        plan = schedule_step(admitted, waiting, self._limits, cost, self._round_robin, held)
        self._round_robin = plan.round_robin
        infeasible = tuple(map(self._remove, plan.infeasible))
        leaves, joins = tuple(map(self._park, plan.leaves)), tuple(map(self._admit, plan.joins))
        runs = tuple(self._admitted[ticket] for ticket in plan.runs)
        if not held:
            self._access = STEPPED.get(self._access, self._access)
            hurry = any(slot.due is not None for slot in runs)
            for slot in self._slots():
                slot.passed_over += not slot.row.blocked
                slot.yielded += hurry and slot not in runs
        for slot in runs:
            slot.passed_over = 0
        if not runs and not infeasible:
            return None
        self.stepping = True
        rows = tuple(slot.row for slot in self._admitted.values())
        lonely = len(rows) == 1 and not self._waiting and not any(slot.alone for slot in runs)
        return Decision(infeasible, leaves, joins, runs, rows, lonely)

    def settle(self, events: Sequence[Event]) -> None:
        """What was decided has been done: the rows that ended by `events` leave."""
        self.stepping = False
        counts = self._counts
        for event in events:
            if isinstance(event, Finished | Yielded | Failed):
                self._admitted.pop(event.ticket, None)
                self._waiting.pop(event.ticket, None)  # it failed on its way to the host
        self._counts = replace(
            counts,
            finished=counts.finished + sum(isinstance(event, Finished) for event in events),
            failed=counts.failed + sum(isinstance(event, Failed) for event in events),
        )

    def clear(self) -> list[Slot]:
        """Those that are left; they are not in hand any more."""
        left = [slot for slot in self._slots() if not slot.withdrawn]
        self._admitted.clear()
        self._waiting.clear()
        return left

    def views(self, now: float) -> list[RowView]:
        """All that are in hand, at `now` (Unix seconds)."""
        return [slot.view(now, self._limits.deadline_grace) for slot in self._slots()]

    @property
    def declining(self) -> bool:
        """Somebody who has to be finished by some time is kept waiting, has not been in the batch
        yet, or had to leave it for others to be in time. Who has no such time makes way for those
        that have, and keeps none of them from coming."""
        return any(slot.is_kept_waiting for slot in self._waiting.values())

    def counts(self) -> Counts:
        parked = sum(slot.parked for slot in self._waiting.values())
        return replace(
            self._counts, admitted=len(self._admitted), waiting=len(self._waiting), parked=parked
        )

    def _slots(self) -> list[Slot]:
        return [*self._admitted.values(), *self._waiting.values()]

    def _remove(self, ticket: int) -> Slot:
        return self._admitted.pop(ticket, None) or self._waiting.pop(ticket)

    def _park(self, ticket: int) -> Slot:
        slot = self._waiting[ticket] = self._admitted.pop(ticket)
        slot.parked = True
        self._counts = replace(self._counts, parks=self._counts.parks + 1)
        return slot

    def _admit(self, ticket: int) -> Slot:
        slot = self._admitted[ticket] = self._waiting.pop(ticket)
        slot.parked = False
        return slot
