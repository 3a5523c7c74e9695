"""A fleet in virtual time, as `release` believes that fleets are: a process takes a row when that
delays no promised one, and every step with all of its rows, but those that are promised nothing
step aside where another would be late."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from typing import Final

from shared.messages import ServiceClass
from shared.policy.batch_key import ShapeKey
from shared.policy.release.decide import release
from shared.policy.release.jobs import Component, Decision, Shares, Stage, WaitingJob
from shared.policy.release.load import Load, ProcessLoad, RowInHand
from shared.policy.release.plan import Margin
from shared.policy.release.rules import Rules
from shared.policy.reported_load import ends
from shared.policy.step_work import StepWork, total

DENOISE: Final[Component] = ("denoise", "m")
SHAPE: Final = ShapeKey(4, 16, 16, (77,))
WORK: Final = StepWork.full(1, SHAPE.tokens)
Policy = Callable[[Sequence[WaitingJob], Load, float, Shares], Decision]
EXACT: Final = Rules(margin=Margin(seconds=0.0))
"""Costs are true, and nothing but the rows takes time."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A step takes `fixed` seconds, and `unit` for each row of `WORK`."""

    fixed: float
    unit: float
    known: bool = True
    doubt: float = 0.0
    slowness: float = 1.0

    def predict(self, work: StepWork) -> float:
        return self.fixed + self.unit * work.tokens / WORK.tokens if work.tokens else 0.0

    def least(self, work: StepWork) -> float:
        return self.predict(work)

    def untried(self, work: StepWork) -> bool:
        return False


COST: Final = Linear(0.06, 0.01)


def job(
    name: str,
    arrival: float = 0.0,
    steps: int = 10,
    deadline: float | None = None,
    user: str = "one",
    service_class: ServiceClass = "standard",
    rows: int = 1,
    **more: object,
) -> WaitingJob:
    stage = Stage(DENOISE, WORK, steps, rows, SHAPE)
    plain = WaitingJob(name, arrival, user, service_class, (), stage, (), deadline)
    return replace(plain, **more)  # type: ignore[arg-type]


@dataclass(slots=True)
class Row:
    job: WaitingJob
    left: int
    """Steps to take,"""
    waits: bool = False
    """and the one that runs without it."""

    @property
    def steps_left(self) -> int:
        return self.left + self.waits

    @property
    def due(self) -> float | None:
        return self.job.promised

    @property
    def work(self) -> StepWork:
        return self.job.denoise.work

    @property
    def shape(self) -> ShapeKey:
        return self.job.denoise.shape


@dataclass(slots=True)
class Process:
    rows: list[Row] = field(default_factory=list)
    running: list[Row] = field(default_factory=list)
    """Those that take the present step."""


def usual(backlog: Sequence[WaitingJob], load: Load, now: float, shares: Shares) -> Decision:
    return release(backlog, load, now, shares, EXACT)


class Fleet:
    """`run` it, then look at `finished` and `refused`. A released job goes to the process that is
    free first. `decisions` are made when jobs come, after each step, and never else."""

    def __init__(
        self,
        processes: int,
        cost: Linear = COST,
        max_rows: int = 4,
        policy: Policy = usual,
        cancelled: Sequence[tuple[float, str]] = (),
    ) -> None:
        self.cost, self.max_rows, self.policy = cost, max_rows, policy
        self.processes = [Process() for _ in range(processes)]
        self.backlog: dict[str, WaitingJob] = {}
        self.queue: list[Row] = []
        """Released, and in no process yet."""
        self.shares = Shares()
        self.now = 0.0
        self.finished: dict[str, float] = {}
        """Job -> when its last row was."""
        self.refused: dict[str, str] = {}
        self.order: list[str] = []
        """In which jobs were released."""
        self.admitted: dict[str, float | None] = {}
        self.steps_taken: dict[str, int] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        for at, name in cancelled:
            self._at(at, lambda name=name: self._cancel(name))  # type: ignore[misc]

    def run(self, jobs: Sequence[WaitingJob], until: float = 1e9) -> "Fleet":
        for each in jobs:
            self._at(each.arrival, lambda each=each: self._come(each))  # type: ignore[misc]
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            if not self._events or self._events[0][0] > self.now:
                self.decide()
        return self

    def late(self) -> list[str]:
        """Jobs that were promised a time and not kept to it."""
        return [
            name
            for name, promised in self.admitted.items()
            if promised is not None and self.finished.get(name, 1e9) > promised + 1e-6
        ]

    def kept(self) -> float:
        """Share of the promises that were kept."""
        promised = [name for name, due in self.admitted.items() if due is not None]
        return 1.0 - len(self.late()) / max(1, len(promised))

    def load(self) -> Load:
        coming = {id(row.job): row.job for row in self.queue}  # of some, rows have begun
        jobs = [
            replace(job, denoise=replace(job.denoise, rows=sum(r.job is job for r in self.queue)))
            for job in coming.values()
        ]
        return Load([self._told(number, one) for number, one in enumerate(self.processes)], jobs)

    def decide(self) -> None:
        found = self.policy(list(self.backlog.values()), self.load(), self.now, self.shares)
        self.shares = found.shares
        self.admitted |= found.admitted
        for name, promised in found.admitted.items():
            self.backlog[name] = replace(self.backlog[name], admitted=True, promised=promised)
        for refusal in found.refused:
            del self.backlog[refusal.job_id]
            self.refused[refusal.job_id] = refusal.reason
        for name in found.released:
            self._give(self.backlog.pop(name))
        self._pull()

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _come(self, each: WaitingJob) -> None:
        self.backlog[each.job_id] = each

    def _cancel(self, name: str) -> None:
        self.backlog.pop(name, None)

    def _give(self, each: WaitingJob) -> None:
        self.order.append(each.job_id)
        self.queue += [Row(each, each.denoise.steps) for _ in range(each.denoise.rows)]

    def _pull(self) -> None:
        """Rows go where they may join, to who is free first."""
        for row in sorted(self.queue, key=lambda row: row.due or inf):
            able = [one for one in self.processes if self._may_join(one, row)]
            if able:
                one = min(able, key=self._seconds)
                one.rows.append(row)
                row.waits = bool(one.running)
                self.queue.remove(row)
        for one in self.processes:
            if one.rows and not one.running:
                self._step(one)

    def _seconds(self, one: Process) -> float:
        return max((end for _, end in ends(one.rows, self.cost)), default=0.0)

    def _told(self, number: int, one: Process) -> ProcessLoad:
        rows = [RowInHand(r.steps_left, r.work, r.shape, r.job.promised) for r in one.rows]
        return ProcessLoad(
            f"d{number}",
            DENOISE,
            self.cost,
            self.now,
            rows,
            self._seconds(one),
            len(rows),
            self.max_rows,
        )

    def _step(self, one: Process) -> None:
        one.running = [row for row in one.rows if row.due is not None]
        for row in one.rows:
            full = len(one.running) == self.max_rows
            if row.due is None and not full and not self._late([*one.running, row]):
                one.running.append(row)
        one.running = one.running or one.rows[:1]
        for row in one.running:
            row.waits = False
        if one.running:
            seconds = self.cost.predict(total(row.work for row in one.running))
            self._at(self.now + seconds, lambda: self._stepped(one))

    def _may_join(self, one: Process, row: Row) -> bool:
        """Whether it has a place in the batch, and delays nobody there."""
        if row.due is None:
            return len(one.rows) < self.max_rows
        hurried = [each for each in one.rows if each.due is not None]
        if len(hurried) >= self.max_rows:
            return False
        return not self._late([*hurried, row]) - {id(row)}

    def _late(self, rows: list[Row]) -> set[int]:
        return {
            id(row)
            for row, end in ends(rows, self.cost)
            if row.due is not None and self.now + end > row.due + 1e-9
        }

    def _stepped(self, one: Process) -> None:
        for row in one.running:
            name = row.job.job_id
            row.left -= 1
            self.steps_taken[name] = self.steps_taken.get(name, 0) + 1
            if not row.left:
                one.rows.remove(row)
                self.finished[name] = self.now
        one.running = []
        self._pull()
