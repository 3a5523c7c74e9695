"""What every process has in hand, by its last word, and what other planners have promised."""

import time
from collections.abc import Iterable
from typing import Final, cast

from shared.messages import (
    ComponentReport,
    CostReport,
    LoadReport,
    PromisedJob,
    PromiseReport,
    WorkReport,
)
from shared.policy.release.jobs import Stage, WaitingJob, rows_of_size
from shared.policy.release.load import Load, ProcessLoad, RowInHand, with_idleness
from shared.policy.step_work import StepWork
from shared.services import NodeKind

SILENT_SECONDS: Final = 5.0
"""After which a process that says nothing is taken to be gone."""
MAX_PROCESSES: Final = 4096
"""That are remembered."""


class PublishedCost:
    """The step cost that a process reports (`StepCost`)."""

    __slots__ = ("_report", "doubt", "known", "slowness")

    def __init__(self, report: CostReport) -> None:
        self._report = report
        self.known = report.known
        self.doubt = report.doubt
        self.slowness = 1.0  # it is what steps take when they are slow

    def __repr__(self) -> str:
        return f"<PublishedCost {self._report.fixed:.4f} s and more>"

    def predict(self, work: StepWork) -> float:
        return self._report.seconds(work) if work.tokens else 0.0

    def least(self, work: StepWork) -> float:
        return self.predict(work)

    def untried(self, work: StepWork) -> bool:
        return False


class LoadTable:
    """Of what others report; `own` is the process that keeps it."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._processes: dict[str, tuple[float, tuple[ProcessLoad, ...]]] = {}
        self._promised: dict[str, tuple[float, tuple[WaitingJob, ...]]] = {}

    def __repr__(self) -> str:
        return f"<LoadTable of {len(self._processes)}/{MAX_PROCESSES} processes>"

    def take(self, report: LoadReport | PromiseReport) -> frozenset[str]:
        """Remember it. Returns the jobs that have rows in that process."""
        now, name = time.time(), report.process
        if isinstance(report, PromiseReport):
            if name != self._own:
                jobs = tuple(_waiting(job, now) for job in report.jobs)
                self._promised[name] = (now, jobs)
            return frozenset()
        if report.leaving:
            self._processes.pop(name, None)
            return frozenset()
        if name in self._processes or len(self._processes) < MAX_PROCESSES:
            _, before = self._processes.get(name, (now, ()))
            loads = tuple(_process(name, component, now) for component in report.components)
            self._processes[name] = (now, with_idleness(loads, before))
        return frozenset(row.job_id for each in report.components for row in each.rows)

    def load(self, now: float, coming: Iterable[WaitingJob]) -> Load:
        """As far as it is known at `now` (Unix seconds)."""
        for table in (self._processes, self._promised):
            silent = [name for name, (at, _) in table.items() if now - at > SILENT_SECONDS]
            for name in silent:
                del table[name]
        processes = [one for _, loads in self._processes.values() for one in loads]
        promised = [job for _, jobs in self._promised.values() for job in jobs]
        return Load(processes, tuple(coming), promised)


def _process(name: str, report: ComponentReport, now: float) -> ProcessLoad:
    longest = report.max_step_seconds
    return ProcessLoad(
        name,
        (cast(NodeKind, report.kind), report.model),
        PublishedCost(report.cost),
        now,
        [
            RowInHand(row.steps_left, _work(row.work), rows_of_size(row.height, row.width), row.due)
            for row in report.rows
        ],
        report.seconds,
        report.count,
        report.max_rows,
        float("inf") if longest is None else longest,
        float("inf") if report.step_seconds is None else report.step_seconds,
    )


def _waiting(job: PromisedJob, now: float) -> WaitingJob:
    stage = Stage(
        ("denoise", job.model),
        _work(job.work),
        job.steps,
        job.rows,
        rows_of_size(job.height, job.width),
    )
    return WaitingJob(
        job.job_id, now, "", "standard", (), stage, (), job.due, admitted=True, promised=job.due
    )


def promised_job(job: WaitingJob) -> PromisedJob:
    """As it is reported to other planners."""
    stage, work = job.denoise, job.denoise.work
    return PromisedJob(
        job_id=job.job_id,
        model=stage.component[1],
        steps=stage.steps,
        work=WorkReport(work.tokens, work.pairs, work.loaded, work.masked),
        height=stage.shape.height,
        width=stage.shape.width,
        rows=stage.rows,
        due=job.promised,
    )


def _work(reported: WorkReport) -> StepWork:
    return StepWork(reported.tokens, reported.pairs, reported.loaded, reported.masked)
