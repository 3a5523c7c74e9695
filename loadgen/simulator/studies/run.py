"""One simulated run: requests are sent to a cluster, and what became of them is noted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from loadgen.outcomes.occupancy import Steps, rows_per_step
from loadgen.outcomes.outcome import Outcome, Sample, Shot, Status
from loadgen.report.statistics.slo import OwnDeadlines, Slo, deadline_of
from loadgen.report.statistics.summary import meets
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.job import Job, wanted
from loadgen.simulator.studies.cluster import Cluster, build
from loadgen.simulator.studies.users import ClosedLoop, send_open
from loadgen.simulator.systems.darkroom import Policies

DRAIN_SECONDS: Final = 600.0
"""What is in flight may take so long after the last request was sent."""
SAMPLES: Final = 120
"""Looks at how full the cluster is, over the window."""
KEY: Final = ("cluster", "all")


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster did. Shares are of all computing."""

    devices: int
    utilisation: float
    """Share of the window, and of what followed it, in which a device computed, in the mean."""
    computed_seconds: float
    wasted_share: float
    """For jobs that have no picture in the end."""
    late_share: float
    """For jobs that have one after their deadline."""
    steps: int
    rows_per_step: float | None
    loads: int
    """How often something was brought to a device."""


@dataclass(frozen=True, slots=True)
class Simulated:
    outcomes: tuple[Outcome, ...]
    """In the order in which they ended."""
    samples: tuple[Sample, ...]
    seconds: float
    """The window in which requests were sent."""
    statistics: Statistics


def simulate(
    cluster: Cluster,
    offered: Sequence[Shot] | ClosedLoop,
    slo: Slo | None = None,
    *,
    carried: bool = True,
    policies: Policies | None = None,
) -> Simulated:
    """`carried`: requests carry the deadlines of `slo`, and whoever serves them knows of them.
    Raises `InvalidRequest` for requests that the cluster's profile has no workflow for."""
    return _Simulation(cluster, offered, slo or OwnDeadlines(), carried, policies).run()


class _Simulation:
    def __init__(
        self,
        cluster: Cluster,
        offered: Sequence[Shot] | ClosedLoop,
        slo: Slo,
        carried: bool,
        policies: Policies | None,
    ) -> None:
        expected = offered.examples() if isinstance(offered, ClosedLoop) else offered
        self._cluster, self._offered, self._slo, self._carried = cluster, offered, slo, carried
        self._clock = Clock()
        self._system = build(cluster, self._clock, expected, policies)
        self._system.ended = self._ended
        self._ends: dict[Job, Outcome] = {}
        self._answered: dict[Job, Callable[[Outcome], None]] = {}
        self._samples: list[Sample] = []
        self._counted = Steps(0, 0)

    def run(self) -> Simulated:
        if isinstance(self._offered, ClosedLoop):
            seconds = self._offered.workload.seconds
            self._offered.begin(self._clock, self._send)
        else:
            seconds = max((shot.at for shot in self._offered), default=0.0)
            send_open(self._offered, self._clock, self._send)
        for number in range(1, SAMPLES + 1):
            self._clock.at(seconds * number / SAMPLES, self._sample)
        self._clock.run(seconds + DRAIN_SECONDS)
        for job in list(self._answered):
            self._system.end(job, "timeout", "drain")
        return Simulated(
            tuple(self._ends.values()),
            tuple(self._samples),
            max(seconds, 1.0),
            self._statistics(),
        )

    def _send(self, shot: Shot, answered: Callable[[Outcome], None]) -> None:
        asked = wanted(shot, self._cluster.profile)
        seconds = deadline_of(self._slo, shot) if self._carried else shot.request.deadline
        deadline = None if seconds is None else self._clock.now + seconds
        job = Job(shot, asked, self._clock.now, deadline)
        self._answered[job] = answered
        self._system.submit(job)

    def _ended(self, job: Job, status: Status, failure: str | None) -> None:
        images = job.wanted.images if status == "done" else 0
        outcome = Outcome(job.shot, job.came, self._clock.now, status, failure, images, 0)
        self._ends[job] = outcome
        self._answered.pop(job)(outcome)

    def _sample(self) -> None:
        past, self._counted = self._counted, Steps(*self._system.steps())
        rows = rows_per_step({KEY: past}, {KEY: self._counted})
        depth = self._system.depth()
        self._samples.append(Sample(self._clock.now, depth, len(self._answered), rows))

    def _statistics(self) -> Statistics:
        spent = sum(job.spent for job in self._ends)
        without = sum(job.spent for job, end in self._ends.items() if end.status != "done")
        late = sum(
            job.spent
            for job, end in self._ends.items()
            if end.status == "done" and meets(self._slo, end) is False
        )
        steps, rows = self._system.steps()
        ended = max((end.ended_at for end in self._ends.values()), default=0.0)
        devices = list(dict.fromkeys(self._system.devices))
        capacity = sum(device.capacity for device in devices) * max(ended, 1e-9)
        return Statistics(
            devices=len(devices),
            utilisation=sum(device.busy for device in devices) / capacity,
            computed_seconds=spent,
            wasted_share=without / spent if spent else 0.0,
            late_share=late / spent if spent else 0.0,
            steps=steps,
            rows_per_step=rows / steps if steps else None,
            loads=self._system.loads,
        )
