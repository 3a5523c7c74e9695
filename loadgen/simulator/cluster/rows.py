"""Images in a simulated denoiser, and the steps that some of them take together."""

from dataclasses import dataclass

from loadgen.simulator.cluster.device import Computation
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.cluster.queue import Node
from shared.policy.row_view import RowView
from shared.policy.step_work import StepWork


@dataclass(slots=True, eq=False)
class Row:
    """An image in a denoiser."""

    number: int
    node: Node
    steps_left: int
    work: StepWork
    came: float
    passed_over: int = 0
    yielded: int = 0

    @property
    def job(self) -> Job:
        return self.node.job

    @property
    def kept_waiting(self) -> bool:
        """As `Slot.is_kept_waiting` of the denoiser."""
        return self.passed_over > 0 and self.job.wanted_by is not None

    def view(self, now: float, grace: float, taken: int = 0) -> RowView:
        """`taken`: steps of the present run that are over."""
        job = self.node.job
        by = job.wanted_by
        return RowView(
            self.number,
            job.wanted.shape,
            job.wanted.forwards,
            job.wanted.service_class,
            self.passed_over,
            steps_left=self.steps_left - taken,
            seconds_left=None if by is None else by - now - grace,
            grace=grace,
            asks=bool(job.wanted.workflow.controls),
            waited=now - self.came,
            part=self.work,
            job_id=str(job.shot.number),
            lenient=job.deadline is None,
            yielded=self.yielded,
        )


@dataclass(slots=True, eq=False)
class Run:
    """`steps` steps of `rows`, `seconds` each if nobody else computes, which began at `began`."""

    rows: tuple[Row, ...]
    steps: int
    seconds: float
    began: float
    controlled: bool
    """It is taken step by step, for ControlNets are asked in each."""
    taken: int = 0
    """Of those, steps that are over."""
    waited: float = 0.0
    """Seconds in which only ControlNets computed."""
    computation: Computation | None = None
    split: bool = False
    """Another denoiser computes half of it."""
