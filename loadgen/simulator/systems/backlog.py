"""The jobs that wait to be released, as planners hold them: `shared/policy/release` decides, by
what the services reported last of what they have in hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from loadgen.simulator.cluster.batcher import Batcher
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.cluster.stepper import Stepper
from shared.config import Settings
from shared.policy.batch_key import ShapeKey
from shared.policy.release.decide import Rules, release
from shared.policy.release.jobs import Component, Decision, Shares, Stage, WaitingJob
from shared.policy.release.load import Load, ProcessLoad, RowInHand
from shared.policy.release.plan import Margin
from shared.policy.reported_load import seconds_in_hand
from shared.policy.step_work import StepWork

TICK_SECONDS: Final = 0.1
"""Longest pause between two decisions while anybody waits; and between two looks of a process at
what it should tell."""
GAP_SECONDS: Final = 0.005
"""Shortest pause between two decisions,"""
GAP_EACH: Final = 2e-5
"""and what each process more adds to it: a decision takes longer, and planners have other work."""
COMING_SECONDS: Final = 5.0
"""After which a released job is taken to have rows, or to have ended."""
ONE: Final = StepWork(1, 1)
"""Of a node that is computed by itself."""

RULES: Final = Rules(margin=Margin(Settings().deadline_margin))

Release = Callable[..., Decision]
"""`release`, or what is measured in its place."""


class Reporter(Protocol):
    """A process that reports to planners what it has in hand."""

    def report(self, now: float) -> ProcessLoad:
        """Its last word."""
        ...


@dataclass(frozen=True, slots=True)
class Each:
    """Every node takes so long (`StepCost`)."""

    seconds: float
    known: bool = True
    doubt: float = 0.0

    def predict(self, work: StepWork) -> float:
        return self.seconds * work.tokens

    def least(self, work: StepWork) -> float:
        return self.predict(work)

    def untried(self, work: StepWork) -> bool:
        return False


class BatcherReporter:
    """Of text encoders and autoencoders: what one node takes alone, and how many it has."""

    def __init__(self, name: str, component: Component, batcher: Batcher) -> None:
        self._batcher = batcher
        self._cost = Each(batcher.alone)
        self._last = ProcessLoad(name, component, self._cost, -1.0)

    def report(self, now: float) -> ProcessLoad:
        count = len(self._batcher)
        if count != self._last.count and now - self._last.at >= TICK_SECONDS:
            seconds = count * self._cost.seconds
            self._last = replace(self._last, at=now, seconds=seconds, count=count)
        return self._last


class StepperReporter:
    """Of denoisers: their rows, and what their steps take now."""

    def __init__(self, name: str, component: str, stepper: Stepper) -> None:
        self._name, self._component, self._stepper = name, component, stepper
        self._changes = -1
        self._last: ProcessLoad | None = None

    def report(self, now: float) -> ProcessLoad:
        stepper, last = self._stepper, self._last
        changed = stepper.changes != self._changes
        if last is not None and not (changed and now - last.at >= TICK_SECONDS):
            return last
        views = stepper.views()
        self._changes = stepper.changes
        for job in stepper.jobs():
            job.reported = True
        self._last = ProcessLoad(
            self._name,
            ("denoise", self._component),
            stepper.cost,
            now,
            [
                RowInHand(
                    row.steps_left,
                    row.work,
                    _shape(row.shape),
                    None if row.seconds_left is None else now + row.seconds_left,
                )
                for row in views
            ],
            seconds_in_hand(views, stepper.cost),
            len(views),
            stepper.limits.max_rows,
            stepper.limits.max_step_seconds,
        )
        return self._last


@dataclass(slots=True)
class _Backlog:
    waiting: dict[Job, WaitingJob] = field(default_factory=dict)
    coming: dict[Job, tuple[float, WaitingJob]] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)


class Backlog:
    """`start` is called with jobs that are released, `refuse` with those that are refused and the
    reason."""

    def __init__(
        self,
        clock: Clock,
        reporters: Sequence[Reporter],
        start: Callable[[Job], None],
        refuse: Callable[[Job, str], None],
        decide: Release = release,
    ) -> None:
        self._clock, self._reporters = clock, reporters
        self._start, self._refuse, self._release = start, refuse, decide
        self._gap = GAP_SECONDS + GAP_EACH * len(reporters)
        self._state = _Backlog()
        self._next = 0.0
        self._planned: float | None = None
        """When the next decision is."""

    def __repr__(self) -> str:
        return f"<Backlog {len(self)} waiting, {len(self._state.coming)} on their way>"

    def __len__(self) -> int:
        return len(self._state.waiting)

    def submit(self, job: Job) -> None:
        self._state.waiting[job] = waiting_job(job, self._clock.now)
        self._plan(max(self._clock.now, self._next))

    def _plan(self, at: float) -> None:
        if self._planned is None or at < self._planned:
            self._planned = at
            self._clock.at(at, self._decide, at)

    def _decide(self, planned: float) -> None:
        if planned != self._planned:
            return  # there was another one before
        now, state = self._clock.now, self._state
        self._planned, self._next = None, now + self._gap
        state.waiting = {job: one for job, one in state.waiting.items() if not job.ended}
        processes = [reporter.report(now) for reporter in self._reporters]
        state.coming = {
            job: (at, one)
            for job, (at, one) in state.coming.items()
            if not job.ended and not job.reported and now - at < COMING_SECONDS
        }
        jobs = {one.job_id: job for job, one in state.waiting.items()}
        load = Load(processes, tuple(one for _, one in state.coming.values()))
        found = self._release(list(state.waiting.values()), load, now, state.shares, RULES)
        state.shares = found.shares
        for job_id, promised in found.admitted.items():
            job = jobs[job_id]
            state.waiting[job] = replace(state.waiting[job], admitted=True, promised=promised)
        for job_id in found.released:
            job = jobs[job_id]
            state.coming[job] = now, state.waiting.pop(job)
            self._start(job)
        for refusal in found.refused:
            job = jobs[refusal.job_id]
            del state.waiting[job]
            self._refuse(job, refusal.reason)
        if state.waiting:
            self._plan(now + max(self._gap, TICK_SECONDS))


def waiting_job(job: Job, now: float) -> WaitingJob:
    """What it asks of the services, as admission sees it."""
    wanted = job.wanted
    workflow = wanted.workflow
    return WaitingJob(
        str(job.shot.number),
        now,
        job.shot.tenant,
        wanted.service_class,
        (Stage(("encode", workflow.encode), ONE),),
        Stage(
            ("denoise", workflow.denoise),
            wanted.work,
            wanted.steps,
            wanted.images,
            _shape(wanted.shape),
        ),
        (Stage(("decode", workflow.decode), ONE, rows=wanted.images),),
        job.deadline,
    )


def _shape(shape: ShapeKey) -> ShapeKey:
    """Rows of one size share steps, as far as planners know."""
    return ShapeKey(0, shape.height, shape.width, ())
