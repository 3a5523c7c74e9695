"""What jobs have asked of every component, for those who decide which process holds it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shared.messages import AskedReport, WorkReport
from shared.policy.release.jobs import Component, Stage, WaitingJob
from shared.policy.step_work import StepWork


@dataclass(slots=True)
class _Asked:
    work: StepWork
    jobs: int = 0
    steps: int = 0
    left: float | None = None


class AskedTable:
    """Since a planner started. It has an entry for each component of what is served."""

    def __init__(self) -> None:
        self._asked: dict[Component, _Asked] = {}

    def __repr__(self) -> str:
        return f"<AskedTable of {len(self._asked)} components>"

    def count(self, job: WaitingJob, now: float) -> None:
        for stage in stages(job):
            one = self._asked.setdefault(stage.component, _Asked(stage.work))
            one.work = stage.work
            one.jobs += 1
            one.steps += stage.rows * stage.steps
            if job.deadline is not None:
                one.left = max(0.0, job.deadline - now)

    def reports(self, waiting: Iterable[WaitingJob]) -> tuple[AskedReport, ...]:
        steps: Counter[Component] = Counter()
        for job in waiting:
            for stage in stages(job):
                steps[stage.component] += stage.rows * stage.steps
        return tuple(
            AskedReport(
                kind=kind,
                model=model,
                jobs=one.jobs,
                steps=one.steps,
                work=WorkReport(one.work.tokens, one.work.pairs, one.work.loaded, one.work.masked),
                waiting=steps[kind, model],
                left=one.left,
            )
            for (kind, model), one in self._asked.items()
        )


def stages(job: WaitingJob) -> tuple[Stage, ...]:
    return *job.before, job.denoise, *job.after
