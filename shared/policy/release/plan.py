"""What is promised already, over all components, and whether one job more can be in time. Pure."""

from collections import defaultdict
from dataclasses import dataclass
from math import inf

from shared.policy.release.jobs import Component, Stage, WaitingJob
from shared.policy.release.load import Load, ProcessLoad
from shared.policy.release.pools import BatchPool, Placement
from shared.policy.release.serial_pool import SerialPool


@dataclass(frozen=True, slots=True)
class Margin:
    """By how much a job has to be earlier than its deadline, as it is predicted, to be let in."""

    seconds: float = 0.05
    """For what nobody predicts: messages, and the file of the picture."""
    most_doubt: float = 0.25
    """Relative error of predictions that is allowed for, at most: a fleet that was disturbed for a
    while would let nobody in."""


class Plan:
    """Changes with every promise."""

    def __init__(self, load: Load, now: float, margin: Margin) -> None:
        loads: defaultdict[Component, list[ProcessLoad]] = defaultdict(list)
        for process in load.processes:
            loads[process.component].append(process)
        self._now = now
        self._margin = margin
        self._batch = {c: BatchPool(each, now) for c, each in loads.items() if c[0] == "denoise"}
        self._serial = {c: SerialPool(each, now) for c, each in loads.items() if c[0] != "denoise"}

    def __repr__(self) -> str:
        return f"<Plan {self._batch} {self._serial}>"

    def pool(self, job: WaitingJob) -> BatchPool | None:
        """Of its rows, if it is known how long they take."""
        pool = self._batch.get(job.denoise.component)
        return pool if pool is not None and pool.known else None

    def ready(self, job: WaitingJob) -> float:
        """Seconds until its rows could begin if it were released now."""
        seconds = 0.0
        for stage in job.before:
            serial = self._serial.get(stage.component)
            if serial is not None and (end := serial.end(stage)) > seconds:
                seconds = end
        return seconds

    def rest(self, job: WaitingJob) -> float:
        """Seconds from the end of its last row until it is finished."""
        seconds = 0.0
        for stage in job.after:
            serial = self._serial.get(stage.component)
            if serial is not None:
                seconds += serial.end(stage)
        return seconds

    def admit(
        self, job: WaitingJob, pool: BatchPool, deadline: float, spare: int
    ) -> Placement | None:
        """Promise a newcomer that it is finished by `deadline`, with room left for `spare` rows
        like its own; None: that would be too late, or too late for somebody else, and nothing is
        promised."""
        due = self._due(pool, deadline)
        last = due - self.rest(job)
        first = last - pool.alone(job.denoise)
        for stage, by in _with_dues(job, first, due):
            serial = self._serial.get(stage.component)
            if serial is not None and not serial.fits(stage, by):
                return None
        placement = pool.place(job.denoise, self.ready(job), last, spare, early=1.0)
        if placement is not None:
            self._occupy(job, first, due)
        return placement

    def try_out(self, job: WaitingJob, pool: BatchPool, deadline: float) -> Placement | None:
        """Promise a newcomer to an idle process, which may also have become quick enough meanwhile;
        see `BatchPool.try_out`. Doubt keeps nobody from that: a mistake makes nobody else late."""
        due, ready, rest = self._time(deadline), self.ready(job), self.rest(job)
        placement = pool.try_out(job.denoise, ready, rest, due) if due > 0.0 else None
        if placement is not None:
            self._occupy(job, due, due)
        return placement

    def _due(self, pool: BatchPool, deadline: float) -> float:
        """Seconds in which a newcomer has to be finished, as it is predicted."""
        doubt = min(pool.doubt, self._margin.most_doubt)
        return self._time(deadline) / (1.0 + doubt)

    def _time(self, deadline: float) -> float:
        return deadline - self._now - self._margin.seconds

    def keep(self, job: WaitingJob, pool: BatchPool, promised: float) -> Placement | None:
        """The place of a job that was promised to be finished by then. No margin is left for it;
        and if it cannot be in time any more, it is as early as it can be."""
        due, ready = promised - self._now, self.ready(job)
        last = due - self.rest(job)
        placement = pool.place(job.denoise, ready, last) or pool.place(job.denoise, ready, inf)
        self._occupy(job, last - pool.alone(job.denoise), due)
        return placement

    def _occupy(self, job: WaitingJob, first: float, due: float) -> None:
        for stage, by in _with_dues(job, first, due):
            serial = self._serial.get(stage.component)
            if serial is not None:
                serial.place(stage, by)


def _with_dues(job: WaitingJob, first: float, due: float) -> list[tuple[Stage, float]]:
    """What is computed one by one, with when it is due: before its rows have to begin, and when all
    is."""
    return [*((stage, first) for stage in job.before), *((stage, due) for stage in job.after)]
