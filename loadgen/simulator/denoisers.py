"""A fleet of denoisers in simulated time, with the policies of the real ones. Deterministic.

Each has the batch that `schedule_step` decides, of rows as it sees them, and its steps take what
the cost model predicts. Edits are sent to a denoiser when they come, or wait in one queue and are
pulled as `shared/worker/pull.py` does: what waits, several at once; else a waiting pull, of which
the server serves the least loaded first, then the one that has waited longest. A pull keeps the
load that it was sent with until it is sent anew.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Final

from loadgen.simulator.edit_mix import Edit
from shared.policy.batch_key import ShapeKey
from shared.policy.cost_model import FEW, MANY, Cell, CostModel
from shared.policy.reported_load import has_capacity
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits, RoundRobinState, schedule_step
from shared.policy.step_work import StepWork
from shared.worker.pull import BUSY_POLL_SECONDS, PULL_LIMIT

STEPS: Final = 28
TOKENS: Final = 4096
"""Of the image,"""
PROMPT: Final = 512
"""and of the prompt, which is computed in any case."""
SHAPE: Final = ShapeKey(16, 64, 64, (PROMPT,))
MEASURED: Final = {str(size): Cell((1.0,), FEW, (0.0, 0.0, 0.0, 0.0)) for size in range(MANY + 1)}
"""So many sizes of steps that no other is worth a try."""


def cost_model(step: float, saved: float) -> CostModel:
    """One image's step, in full, takes `step` seconds, of which a step with more images saves
    the share `saved` for each of them; known from many steps."""
    each = step * (1.0 - saved) / (TOKENS + PROMPT)
    return CostModel(coefficients=(step * saved, each, 0.0, 0.0, 0.0), cells=MEASURED)


COST: Final = cost_model(0.243, saved=1 / 3)
"""FLUX at 1024x1024 on an H800 as published: 0.243 s for a step, 1.9 times faster at a mask of
0.2."""

ReportedLoad = Callable[[Sequence[RowView], CostModel], int]
"""The load that a denoiser tells when it pulls."""


@dataclass(frozen=True, slots=True)
class Outcome:
    work: tuple[float, ...]
    """For each denoiser, the seconds by which its rows made steps longer."""
    busy: tuple[float, ...]
    """The same, of its steps."""
    latencies: tuple[float, ...]
    """Seconds from coming to being finished."""


@dataclass(slots=True)
class Denoiser:
    rows: dict[int, RowView] = field(default_factory=dict)
    """In the batch,"""
    waiting: dict[int, RowView] = field(default_factory=dict)
    """and not yet."""
    running: tuple[int, ...] = ()
    round_robin: RoundRobinState = field(default_factory=RoundRobinState)
    pull: tuple[int, float, int] | None = None
    """Load, time and number of the pull that waits at the server."""
    work: float = 0.0
    busy: float = 0.0

    @property
    def views(self) -> list[RowView]:
        return [*self.rows.values(), *self.waiting.values()]

    def __len__(self) -> int:
        return len(self.rows) + len(self.waiting)


def row_work(edit: Edit) -> StepWork:
    """Of each step of an edit."""
    return StepWork.of(1, round(edit.mask * TOKENS) + PROMPT, TOKENS + PROMPT)


def added_seconds(edit: Edit) -> float:
    """By which all steps together take longer for it; what every step pays is nobody's."""
    work = row_work(edit)
    return STEPS * (COST.predict(work) - COST.coefficients[0])


class Simulation:
    """Subclasses say who gets an edit."""

    def __init__(
        self, edits: Sequence[Edit], denoisers: int, limits: Limits, cost: CostModel = COST
    ) -> None:
        self.edits, self.limits, self.cost = edits, limits, cost
        self.denoisers = [Denoiser() for _ in range(denoisers)]
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._latencies: list[float] = []

    def run(self) -> Outcome:
        """Until the last edit is finished."""
        for number, edit in enumerate(self.edits):
            self.at(edit.at, partial(self.arrived, number))
        while self._events and len(self._latencies) < len(self.edits):
            self.now, _, event = heapq.heappop(self._events)
            event()
        return Outcome(
            tuple(one.work for one in self.denoisers),
            tuple(one.busy for one in self.denoisers),
            tuple(self._latencies),
        )

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def arrived(self, number: int) -> None:
        raise NotImplementedError

    def freed(self, one: Denoiser) -> None:
        """A step of `one` is over, or rows of it are finished."""

    def give(self, one: Denoiser, number: int) -> None:
        edit = self.edits[number]
        one.waiting[number] = RowView(
            number, SHAPE, 1, "standard", steps_left=STEPS, part=row_work(edit)
        )
        one.work += added_seconds(edit)
        if not one.running:
            self._step(one)

    def _step(self, one: Denoiser) -> None:
        rows, waiting = (
            [replace(row, waited=self.now - self.edits[number].at) for number, row in some.items()]
            for some in (one.rows, one.waiting)
        )
        plan = schedule_step(rows, waiting, self.limits, self.cost, one.round_robin)
        one.round_robin, one.running = plan.round_robin, plan.runs
        one.rows |= {number: one.waiting.pop(number) for number in plan.joins}
        if not plan.runs:
            return
        work = sum((one.rows[number].work for number in plan.runs), StepWork(0, 0))
        seconds = self.cost.predict(work)
        one.busy += seconds
        self.at(self.now + seconds, lambda: self._stepped(one))

    def _stepped(self, one: Denoiser) -> None:
        for number in one.running:
            row = replace(one.rows[number], steps_left=one.rows[number].steps_left - 1)
            one.rows[number] = row
            if not row.steps_left:
                del one.rows[number]
                self._latencies.append(self.now - self.edits[number].at)
        one.running = ()
        self.freed(one)
        if not one.running:
            self._step(one)


class RoundRobin(Simulation):
    """Each edit to the next denoiser."""

    def arrived(self, number: int) -> None:
        self.give(self.denoisers[number % len(self.denoisers)], number)


class LeastRequests(Simulation):
    """Each edit to a denoiser that has the fewest; of several, to the next one."""

    _last = -1

    def arrived(self, number: int) -> None:
        size = len(self.denoisers)
        order = [(self._last + 1 + k) % size for k in range(size)]
        self._last = min(order, key=lambda k: len(self.denoisers[k]))
        self.give(self.denoisers[self._last], number)


class Pulling(Simulation):
    """Edits wait in one queue, and are pulled by who has room."""

    def __init__(
        self, edits: Sequence[Edit], denoisers: int, limits: Limits, reported_load: ReportedLoad
    ) -> None:
        super().__init__(edits, denoisers, limits)
        self._reported_load = reported_load
        self._queue: deque[int] = deque()
        for one in self.denoisers:
            self._pull(one)

    def arrived(self, number: int) -> None:
        waiting = [one for one in self.denoisers if one.pull is not None]
        if not waiting:
            self._queue.append(number)
            return
        served = min(waiting, key=lambda one: one.pull or (0, 0.0, 0))
        served.pull = None
        self.give(served, number)
        self._pull(served)

    def freed(self, one: Denoiser) -> None:
        if one.pull is None:
            self._pull(one)

    def _pull(self, one: Denoiser) -> None:
        """What waits; else a pull that waits, if there is room."""
        while self._queue and self._free_capacity(one):
            for _ in range(min(self._free_capacity(one), PULL_LIMIT, len(self._queue))):
                self.give(one, self._queue.popleft())
        one.pull = None
        if self._free_capacity(one):
            number = next(self._numbers)
            one.pull = (self._reported_load(one.views, COST), self.now, number)
            self.at(self.now + BUSY_POLL_SECONDS, lambda: self._expired(one, number))

    def _expired(self, one: Denoiser, number: int) -> None:
        if one.pull is not None and one.pull[2] == number:
            self._pull(one)

    def _free_capacity(self, one: Denoiser) -> int:
        enough = has_capacity(one.views, 0, COST, self.limits.max_step_seconds)
        return self.limits.max_rows - len(one) if enough else 0
