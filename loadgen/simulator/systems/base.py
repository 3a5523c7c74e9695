"""What every simulated system does: it takes jobs, and ends each of them exactly once."""

from collections.abc import Callable, Sequence

from loadgen.outcomes.outcome import Status
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.profiles.profile import Profile
from shared.errors import DeadlineExceeded

Ended = Callable[[Job, Status, str | None], None]
"""Called with a job, how it ended, and why it has no picture."""


class System:
    """`ended` is set by whoever sends the jobs."""

    def __init__(self, clock: Clock, profile: Profile, devices: Sequence[Device]) -> None:
        self.clock, self.profile, self.devices = clock, profile, devices
        self.ended: Ended = lambda job, status, failure: None
        self.loads = 0
        """How often something was brought to a device after the start."""

    def submit(self, job: Job) -> None:
        """Take `job`, which came now. It has ended when its deadline is over, at the latest."""
        if job.deadline is not None:
            self.clock.at(job.deadline, self._expire, job)
        self.came(job)

    def came(self, job: Job) -> None:
        raise NotImplementedError

    def depth(self) -> int:
        """Nodes, or requests, that wait in queues."""
        raise NotImplementedError

    def steps(self) -> tuple[int, int]:
        """Denoising steps so far, and the rows in them all together."""
        raise NotImplementedError

    def end(self, job: Job, status: Status, failure: str | None = None) -> None:
        """Nothing happens to a job that has ended."""
        if not job.ended:
            job.ended = True
            for holder in job.holders:
                holder.withdraw(job)
            self.ended(job, status, failure)

    def _expire(self, job: Job) -> None:
        self.end(job, "failed", DeadlineExceeded.code)
