"""Which jobs are released to the services now, which wait on, and which are refused. Pure.

Jobs are bound late: one is released when a process will have room for it in a moment, so that until
then another one may go first, and nothing is computed for a job that is cancelled, or late. What
was promised keeps its time: promised jobs are planned first, earliest deadline first, and a
newcomer is let in only if its rows find room beside them without making any late (`timeline.py`).
If they do not, it is refused at once.

Jobs without a deadline wait for room, by class and by fair share of each user (`shares.py`), and
their rows yield to those that have one. Those that were passed over for long are promised a time
themselves: as many as take a part `RESERVED` of what the processes can do. So are those of a user
who asks for clearly less than others have.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Final

from shared.policy.release.jobs import (
    Component,
    Decision,
    Prediction,
    Refusal,
    Shares,
    WaitingJob,
)
from shared.policy.release.load import Load
from shared.policy.release.plan import Plan
from shared.policy.release.pools import BatchPool, Placement
from shared.policy.release.room import HORIZON
from shared.policy.release.rules import Rules
from shared.policy.release.shares import PATIENCE, FairOrder, rank

RESERVED: Final = 0.125
"""Share of the time of all processes for jobs without a deadline that were passed over."""
LENIENCE: Final = 1.25
"""A job without a deadline is promised to be finished in so many times what is predicted."""
PROMPT: Final = 1.1
"""Times what it takes alone that a job of a user who asks for little is promised to take."""
UNHEARD: Final = 64
"""Jobs that are released for a component of which nobody says what it has in hand."""


NO_SHARES: Final = Shares()
USUAL: Final = Rules()


def release(
    backlog: Sequence[WaitingJob],
    load: Load,
    now: float,
    shares: Shares = NO_SHARES,
    rules: Rules = USUAL,
) -> Decision:
    """Decide about all that wait. Jobs that are named in `refused` or `released` leave the backlog;
    those in `admitted` are given with what is promised to them the next time."""
    return _Release(load, now, shares, rules).decide(backlog)


class _Release:
    """One decision."""

    def __init__(self, load: Load, now: float, shares: Shares, rules: Rules) -> None:
        self._now = now
        self._load = load
        self._rules = rules
        self._plan = Plan(load, now, rules.margin)
        self._fair = FairOrder(shares, now, rules.weights)
        self._before = shares
        self._reserved = dict(shares.reserved)
        self._unheard = Counter(job.denoise.component for job in load.coming)
        self._released: list[str] = []
        self._refused: list[Refusal] = []
        self._admitted: dict[str, float | None] = {}
        self._waiting: list[tuple[float, str, float | None]] = []
        """Of those that wait on: when they begin, and are finished."""

    def decide(self, backlog: Sequence[WaitingJob]) -> Decision:
        alive = [job for job in backlog if not self._is_over(job)]
        self._keep([job for job in alive if job.promised is not None])
        open_ = [job for job in alive if job.promised is None]
        unhurried = self._bounded([job for job in open_ if job.deadline is None])
        unhurried = self._promise_patient(unhurried)
        self._admit([job for job in open_ if job.deadline is not None])
        self._fill(self._promise_light(unhurried))
        self._waiting.sort()
        return Decision(
            tuple(self._released),
            tuple(sorted(self._refused, key=lambda refusal: refusal.job_id)),
            {
                job_id: Prediction(position, seconds)
                for position, (_, job_id, seconds) in enumerate(self._waiting, 1)
            },
            self._admitted,
            replace(self._fair.shares(self._before), reserved=self._reserved),
        )

    def _is_over(self, job: WaitingJob) -> bool:
        if job.deadline is None or job.deadline > self._now:
            return False
        self._refused.append(Refusal(job.job_id, "deadline_exceeded"))
        return True

    def _keep(self, promised: Sequence[WaitingJob]) -> None:
        """Plan what was promised, here and elsewhere, and release what can begin in a moment."""
        own = {job.job_id for job in promised}
        others = [*self._load.coming, *self._load.elsewhere]
        for job in sorted((*promised, *others), key=_by_promise):
            pool = self._plan.pool(job)
            if job.job_id not in own:
                if pool is None:
                    continue
                if job.promised is not None:
                    self._plan.keep(job, pool, job.promised)
                else:
                    for _ in range(job.denoise.rows):
                        pool.take_room(job.denoise)
            elif pool is None:
                self._without_costs(job)
            elif job.promised is not None:
                self._settle(job, pool, self._plan.keep(job, pool, job.promised))

    def _settle(self, job: WaitingJob, pool: BatchPool, placement: Placement | None) -> None:
        """Release a promised job if its place in the plan begins in a moment; if it has none, it
        waits until it has, or until it cannot be in time any more."""
        ready = self._plan.ready(job)
        if job.deadline is not None:
            least = ready + pool.alone(job.denoise) + self._plan.rest(job)
            if self._now + least > job.deadline:
                self._refuse_late(job, least)
                return
        if placement is None:
            self._wait(job, inf, None)
        elif placement.begin <= ready + HORIZON:
            self._released.append(job.job_id)
        else:
            self._wait(job, placement.begin, placement.end)

    def _wait(self, job: WaitingJob, begin: float, end: float | None) -> None:
        seconds = None if end is None else end + self._plan.rest(job)
        self._waiting.append((begin, job.job_id, seconds))

    def _refuse_late(self, job: WaitingJob, seconds: float) -> None:
        late = 0.0 if job.deadline is None else self._now + seconds - job.deadline
        self._refused.append(
            Refusal(job.job_id, "deadline_unreachable", seconds, max(HORIZON, late))
        )

    def _bounded(self, jobs: Sequence[WaitingJob]) -> list[WaitingJob]:
        """Those that may wait: who came first, as far as the bounds go."""
        bounds = self._rules.bounds
        jobs_of: Counter[str] = Counter()
        bytes_of: Counter[str] = Counter()
        number = size = 0
        kept = []
        for job in sorted(jobs, key=lambda job: (not job.admitted, job.arrival, job.job_id)):
            for name, reached, bound in (
                ("jobs", number + 1, bounds.jobs),
                ("bytes", size + job.size, bounds.bytes),
                ("jobs of one user", jobs_of[job.user] + 1, bounds.user_jobs),
                ("bytes of one user", bytes_of[job.user] + job.size, bounds.user_bytes),
            ):
                if reached > bound and not job.admitted:
                    self._refused.append(Refusal(job.job_id, "backlog_full", bound=(name, bound)))
                    break
            else:
                kept.append(job)
                number, size = number + 1, size + job.size
                jobs_of[job.user] += 1
                bytes_of[job.user] += job.size
        return kept

    def _promise_patient(self, jobs: Sequence[WaitingJob]) -> list[WaitingJob]:
        """Those that still wait for room. Who was passed over for long is promised a time, in fair
        order, if the part that is reserved for them is not used up. Nobody is passed over whose
        user had more than its share meanwhile."""
        patient = [job for job in jobs if self._now - job.arrival > PATIENCE]
        taken = set()
        for job, seconds in self._in_order(patient):
            pool = self._plan.pool(job)
            component = job.denoise.component
            if pool is None or self._reserved.get(component, 0.0) > self._now:
                continue
            if self._fair.exceeds(job.user):  # it waits for its user's own jobs
                continue
            placement = pool.place(job.denoise, self._plan.ready(job), inf)
            if placement is None:
                continue
            due = LENIENCE * (placement.end + self._plan.rest(job))
            self._reserved[component] = self._now + pool.spread(seconds) / RESERVED
            self._fair.charge(job.user, seconds)
            self._admitted[job.job_id] = self._now + due
            self._settle(job, pool, placement)
            taken.add(job.job_id)
        return [job for job in jobs if job.job_id not in taken]

    def _promise_light(self, jobs: Sequence[WaitingJob]) -> list[WaitingJob]:
        """Those that still wait for room. A job of a user that asks for less than others have is
        promised a time, if that makes nobody late: rows of others step aside for it."""
        wanted: defaultdict[str, float] = defaultdict(float)
        priced = [(job, self._seconds(job)) for job in jobs]
        for job, seconds in priced:
            wanted[job.user] += seconds
        light = self._fair.asking_little(wanted)
        if not light:
            return list(jobs)
        waiting = []
        for job, seconds in self._fair.order(priced):
            pool = self._plan.pool(job)
            placement = None
            if pool is not None and job.user in light:
                ready, rest = self._plan.ready(job), self._plan.rest(job)
                due = PROMPT * (ready + pool.alone(job.denoise) + rest)
                placement = pool.place(job.denoise, ready, due - rest)
                if placement is None and (placement := pool.place(job.denoise, ready, inf)):
                    due = LENIENCE * (placement.end + rest)
            if pool is None or placement is None:
                waiting.append(job)
                continue
            self._fair.charge(job.user, seconds)
            self._admitted[job.job_id] = self._now + due
            self._settle(job, pool, placement)
        return waiting

    def _admit(self, newcomers: Sequence[WaitingJob]) -> None:
        """Promise, or refuse, those that have a deadline, the most urgent first."""

        def urgency(job: WaitingJob) -> tuple[int, bool, float, str]:
            over = self._fair.exceeds(job.user)
            return rank(job, self._now), over, job.deadline or 0.0, job.job_id

        for job in sorted(newcomers, key=urgency):
            pool = self._plan.pool(job)
            if pool is None or job.deadline is None:
                self._without_costs(job)
                continue
            spare = int(self._fair.exceeds(job.user))
            placement = self._plan.admit(job, pool, job.deadline, spare)
            tried = None if placement else self._plan.try_out(job, pool, job.deadline)
            if tried is not None:
                self._released.append(job.job_id)
            elif placement is None:
                end = pool.soonest(job.denoise, self._plan.ready(job))
                self._refuse_late(job, end + self._plan.rest(job))
                self._fair.ask(job.user)
                continue
            self._fair.charge(job.user, pool.share(job.denoise))
            self._admitted[job.job_id] = job.deadline
            if placement is not None:
                self._settle(job, pool, placement)

    def _fill(self, jobs: Sequence[WaitingJob]) -> None:
        """Release as many of those without a deadline as there is room for, in fair order."""
        ahead: defaultdict[Component, float] = defaultdict(float)
        full: set[Component] = set()
        for job, seconds in self._in_order(jobs):
            pool = self._plan.pool(job)
            component = job.denoise.component
            if pool is None:
                self._without_costs(job)
                continue
            if component not in full and pool.take_room(job.denoise):
                for _ in range(job.denoise.rows - 1):
                    pool.take_room(job.denoise)
                self._fair.charge(job.user, seconds)
                self._released.append(job.job_id)
                continue
            full.add(component)
            if not job.admitted:
                self._admitted[job.job_id] = None
            begin = pool.wait(ahead[component])
            ahead[component] += seconds
            self._wait(job, begin, begin + pool.share(job.denoise) * pool.width)

    def _without_costs(self, job: WaitingJob) -> None:
        """Nobody says how long its rows take: a few are released, and the others wait."""
        component = job.denoise.component
        if self._unheard[component] < UNHEARD:
            self._unheard[component] += 1
            self._released.append(job.job_id)
        else:
            self._wait(job, inf, None)

    def _in_order(self, jobs: Sequence[WaitingJob]) -> list[tuple[WaitingJob, float]]:
        return list(self._fair.order([(job, self._seconds(job)) for job in jobs]))

    def _seconds(self, job: WaitingJob) -> float:
        """Of one process, that it takes."""
        pool = self._plan.pool(job)
        return pool.share(job.denoise) if pool else 1.0


def _by_promise(job: WaitingJob) -> tuple[float, str]:
    return (inf if job.promised is None else job.promised), job.job_id
