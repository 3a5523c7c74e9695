"""The jobs that wait to be released, as a planner holds them: `shared/policy/release` decides, by
what the services reported last of what they have in hand.

The counterpart of `services/planner/backlog.py`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Final

from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.systems.reports import Reporter
from shared.config import Settings
from shared.policy.release.decide import release
from shared.policy.release.jobs import ONE, Decision, Shares, Stage, WaitingJob, rows_of_size
from shared.policy.release.load import Load
from shared.policy.release.pace import TICK_SECONDS, pause, settled_at
from shared.policy.release.plan import Margin
from shared.policy.release.rules import Rules

DECISION_SECONDS: Final = 3e-4
"""Of a decision, and"""
PROCESS_SECONDS: Final = 2e-6
"""more for each process that reports, and"""
JOB_SECONDS: Final = 2e-5
"""for each job that waits."""

RULES: Final = Rules(margin=Margin(Settings().deadline_margin))

Release = Callable[..., Decision]
"""`release`, or what is measured in its place."""


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
        reporters: Collection[Reporter],
        start: Callable[[Job], None],
        refuse: Callable[[Job, str], None],
        decide: Release = release,
    ) -> None:
        self._clock, self._reporters = clock, reporters
        self._start, self._refuse, self._release = start, refuse, decide
        self._state = _Backlog()
        self._next = 0.0
        self._planned: float | None = None
        """When the next decision is."""

    def __repr__(self) -> str:
        return f"<Backlog {len(self)} waiting, {len(self._state.coming)} on their way>"

    def __len__(self) -> int:
        return len(self._state.waiting)

    @property
    def waiting(self) -> Collection[Job]:
        return self._state.waiting

    def submit(self, job: Job) -> None:
        self._state.waiting[job] = waiting_job(job, self._clock.now)
        self._plan(max(self._clock.now, self._next))

    def heard(self) -> None:
        """A process has told how it stands."""
        if self._state.waiting:
            self._plan(max(self._clock.now, self._next))

    def _plan(self, at: float) -> None:
        if self._planned is None or at < self._planned:
            self._planned = at
            self._clock.at(at, self._decide, at)

    def _decide(self, planned: float) -> None:
        if planned != self._planned:
            return  # there was another one before
        now, state = self._clock.now, self._state
        state.waiting = {job: one for job, one in state.waiting.items() if not job.ended}
        self._planned, self._next = None, now + pause(self._seconds())
        state.coming = {
            job: (at, one)
            for job, (at, one) in state.coming.items()
            if not job.ended and not job.reported and now < settled_at(one, at)
        }
        load = Load(
            [reporter.last for reporter in self._reporters],
            tuple(one for _, one in state.coming.values()),
        )
        self._apply(
            self._release(list(state.waiting.values()), load, now, state.shares, RULES), now
        )
        if state.waiting:
            self._plan(max(self._next, now + TICK_SECONDS))

    def _seconds(self) -> float:
        """That a planner takes to decide."""
        jobs, processes = len(self._state.waiting), len(self._reporters)
        return DECISION_SECONDS + JOB_SECONDS * jobs + PROCESS_SECONDS * processes

    def _apply(self, found: Decision, now: float) -> None:
        state = self._state
        jobs = {one.job_id: job for job, one in state.waiting.items()}
        state.shares = found.shares
        for job_id, promised in found.admitted.items():
            job = jobs[job_id]
            job.promised = promised
            state.waiting[job] = replace(state.waiting[job], admitted=True, promised=promised)
        for job_id in found.released:
            job = jobs[job_id]
            state.coming[job] = now, state.waiting.pop(job)
            self._start(job)
        for refusal in found.refused:
            job = jobs[refusal.job_id]
            del state.waiting[job]
            self._refuse(job, refusal.reason)


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
            rows_of_size(wanted.shape.height, wanted.shape.width),
        ),
        (Stage(("decode", workflow.decode), ONE, rows=wanted.images),),
        job.deadline,
    )
