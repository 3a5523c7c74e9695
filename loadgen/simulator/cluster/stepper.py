"""A denoiser: rows join and leave at step boundaries, as the product's step scheduler decides.

The counterpart of `services/denoiser/engine/step_queue.py`. Between two decisions lies one step; or
several, at most `STEPS_AHEAD`, while all rows in hand take part in each: then nothing that the
scheduler looks at changes but the steps that are left, and whoever comes ends that at the next
boundary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.simulator.cluster.job import Job
from loadgen.simulator.cluster.queue import Node, Place
from loadgen.simulator.cluster.rows import Row, Run
from loadgen.simulator.cluster.runs import Runs
from shared.policy.cost_model import CostModel
from shared.policy.deadlines import has_time
from shared.policy.reported_load import has_capacity, level, seconds_in_hand
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits, RoundRobinState, StepPlan, schedule_step
from shared.policy.step_work import total

SURPRISE: Final = 0.05
"""A step that took as long as predicted within this share is not learnt from."""
Schedule = Callable[..., StepPlan]
"""`schedule_step`, or what is measured in its place."""


@dataclass(slots=True)
class StepCounts:
    steps: int = 0
    row_steps: int = 0
    decisions: int = 0
    seconds: float = 0.0
    """Of steps, as they would have taken alone on their device."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What is called with rows that are finished, and with jobs that cannot be in time any more."""

    finished: Callable[[Node], None]
    infeasible: Callable[[Job], None]


class Stepper:
    """`limits.max_rows` rows are in hand at most."""

    def __init__(
        self,
        place: Place,
        cost: CostModel,
        limits: Limits,
        runs: Callable[[Callable[[Run], None]], Runs],
        ends: Ends,
        schedule: Schedule = schedule_step,
    ) -> None:
        """`cost`: what it believes at first; its steps take what the component's profile says, and
        longer while others compute on the same device, from which it learns. `runs` is called with
        what is to be called after each run."""
        self.limits, self.cost, self.counts = limits, cost, StepCounts()
        self._clock, self._queue, self.device = place.clock, place.queue, place.device
        self._ends, self._schedule = ends, schedule
        self._runs = runs(lambda run: self._stepped(run))
        self._admitted: dict[int, Row] = {}
        self._waiting: dict[int, Row] = {}
        self._round_robin = RoundRobinState()
        self._run: Run | None = None
        self._next = 0
        self.changed: Callable[[], None] = lambda: None
        """Called when rows come or leave."""
        self.others: Sequence[Stepper] = ()
        """That hold the same component."""

    def __repr__(self) -> str:
        return f"<Stepper {self._queue.name} {len(self._admitted)} + {len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._admitted) + len(self._waiting)

    # ------------------------------------------------------------------------ as a puller

    def room(self) -> int:
        free = self.limits.max_rows - len(self)
        if free <= 0 or any(row.kept_waiting for row in self._waiting.values()):
            return 0
        views = self.views()
        enough = has_capacity(views, 0, self.cost, self.limits.max_step_seconds)
        return free if enough and has_time(views, 0, self.cost) else 0

    def load(self) -> int:
        return level(seconds_in_hand(self.views(), self.cost), len(self))

    def take(self, node: Node) -> None:
        self._add(node)
        self._awake()
        self.pull()

    def pull(self) -> None:
        """What waits in the queue, as far as there is room."""
        while found := self._queue.pull(self):
            for node in found:
                self._add(node)
            self._awake()

    # ------------------------------------------------------------------------ rows

    def views(self) -> list[RowView]:
        """All that are in hand, as they are now, in the midst of a run."""
        run, now, grace = self._run, self._clock.now, self.limits.deadline_grace
        taken = 0 if run is None else self._runs.taken(run)
        running = frozenset(row.number for row in run.rows) if run is not None else frozenset()
        return [
            row.view(now, grace, taken if row.number in running else 0)
            for row in (*self._admitted.values(), *self._waiting.values())
        ]

    def jobs(self) -> list[Job]:
        """Of all rows in hand."""
        return [row.job for row in (*self._admitted.values(), *self._waiting.values())]

    def withdraw(self, job: Job) -> None:
        """Nobody waits for it any more: its rows leave at the next boundary."""
        self._forget_ended(self._waiting)
        if any(row.job is job for row in self._admitted.values()):
            self._cut_short()

    def _forget_ended(self, rows: dict[int, Row]) -> None:
        for row in [row for row in rows.values() if row.job.ended]:
            del rows[row.number]
            self.changed()

    def _views(self, rows: Mapping[int, Row]) -> list[RowView]:
        now, grace = self._clock.now, self.limits.deadline_grace
        return [row.view(now, grace) for row in rows.values()]

    def _add(self, node: Node) -> None:
        wanted = node.job.wanted
        row = Row(self._next, node, wanted.steps, wanted.work, self._clock.now)
        node.job.holders.append(self)
        self._waiting[row.number] = row
        self._next += 1
        self.changed()

    # ------------------------------------------------------------------------ steps

    def _awake(self) -> None:
        """Somebody came: decide at once if nothing runs, else at the next boundary."""
        if self._run is None:
            self._decide()
        else:
            self._cut_short()

    def _cut_short(self) -> None:
        """The run ends with the step that is being taken."""
        if self._run is not None:
            self._runs.cut_short(self._run)

    def _decide(self) -> None:
        """Until there is nobody, or a step was begun."""
        while self._run is None and len(self):
            plan = self._schedule(
                self._views(self._admitted),
                self._views(self._waiting),
                self.limits,
                self.cost,
                self._round_robin,
            )
            self.counts.decisions += 1
            self._round_robin = plan.round_robin
            given_up = [self._remove(number) for number in plan.infeasible]
            for number in plan.leaves:
                self._waiting[number] = self._admitted.pop(number)
            for number in plan.joins:
                self._admitted[number] = self._waiting.pop(number)
            if plan.runs:
                self._begin(tuple(self._admitted[number] for number in plan.runs))
            for row in given_up:
                self._ends.infeasible(row.job)
            if not plan.runs and not given_up:
                return

    def _remove(self, number: int) -> Row:
        return self._admitted.pop(number, None) or self._waiting.pop(number)

    def _begin(self, rows: tuple[Row, ...]) -> None:
        everybody = len(rows) == len(self)
        if not everybody:
            hurry = any(row.job.wanted_by is not None for row in rows)
            for row in (*self._admitted.values(), *self._waiting.values()):
                row.passed_over += 1
                row.yielded += hurry and row not in rows
        for row in rows:
            row.passed_over = 0
        steps = min(row.steps_left for row in rows) if everybody else 1
        idle = (one.device for one in self.others if not one and len(self) == 1)
        self._run = self._runs.begin(rows, steps, idle)

    def _stepped(self, run: Run) -> None:
        counts, seconds = self.counts, run.steps * run.seconds
        self._learn(run)
        counts.steps += run.steps
        counts.row_steps += run.steps * len(run.rows)
        counts.seconds += seconds
        units = sum(row.job.wanted.units for row in run.rows)
        self._run = None
        done: list[Node] = []
        for row in run.rows:
            row.steps_left -= run.steps
            row.job.spent += seconds * row.job.wanted.units / units
            if row.steps_left <= 0:
                del self._admitted[row.number]
                done.append(row.node)
        self._forget_ended(self._admitted)
        if done:
            self.changed()
        if not self:
            self.cost = self.cost.rested()
        for node in done:
            self._ends.finished(node)
        self._pull_quietly()
        self._decide()
        self.pull()

    def _learn(self, run: Run) -> None:
        """From steps that took another time than it believed; the others tell nothing new."""
        if run.split:
            return
        took = (self._clock.now - run.began - run.waited) / run.steps
        work = total(row.work for row in run.rows)
        if abs(took / max(self.cost.predict(work), 1e-9) - 1.0) > SURPRISE:
            self.cost = self.cost.observe(work, took)

    def _pull_quietly(self) -> None:
        """Take what waits before the next step is decided on."""
        while len(self._queue) and (found := self._queue.pull(self)):
            for node in found:
                self._add(node)
