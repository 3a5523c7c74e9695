"""Processes that hold whole pipelines, as people run them today: a batch of requests that go
together is drawn from the first step to the last, and nobody joins meanwhile.

What helps such a server is in: requests are batched where that saves time and makes nobody late,
one queue feeds all processes of a group, a request that cannot be in time any more is dropped, and
one that would have to wait for weights is overtaken by those that need not. A pipeline that is not
on a device is brought there whole, and the least recently used ones leave.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job, Wanted
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.systems.base import System
from shared.errors import DeadlineExceeded, NotServed

LOOKED_AT: Final = 64
"""Of those that wait, the first so many are looked at for one that can begin."""
GAIN: Final = 0.05
"""A batch grows while each picture of it takes less time by this share at least."""


def pipeline_seconds(profile: Profile, batch: Sequence[Wanted]) -> float:
    """Of requests that are drawn together; their workflow, steps and size are the first one's."""
    first, components = batch[0], profile.components
    pictures = sum(one.images for one in batch)
    units, size = first.units * pictures, first.units / first.forwards * pictures
    workflow = first.workflow
    step = components[workflow.denoise].cost.seconds(units) + profile.overheads.step
    step += sum(components[name].cost.seconds(units) for name in workflow.controls)
    encoding = components[workflow.encode].cost.seconds(first.forwards * len(batch))
    return encoding + first.steps * step + components[workflow.decode].cost.seconds(size)


@dataclass(eq=False, slots=True)
class PipelineProcess:
    """`resident`: workflows whose pipelines are on the device, least recently used first."""

    device: Device
    resident: OrderedDict[str, None] = field(default_factory=OrderedDict)
    free_at: float = 0.0
    busy: bool = False


@dataclass(eq=False)
class Group:
    """`processes` draw what is asked of `workflows`, and nothing else."""

    workflows: tuple[str, ...]
    processes: list[PipelineProcess]
    queue: dict[Job, None] = field(default_factory=dict)
    """In order of arrival."""

    def withdraw(self, job: Job) -> None:
        """Nobody waits for it any more."""
        self.queue.pop(job, None)


class PipelineSystem(System):
    def __init__(
        self, clock: Clock, profile: Profile, devices: Sequence[Device], groups: Sequence[Group]
    ) -> None:
        """Every workflow is one group's; processes begin with what they hold."""
        super().__init__(clock, profile, devices)
        self.groups = list(groups)
        self._steps = self._row_steps = 0

    def came(self, job: Job) -> None:
        self.clock.after(self.profile.overheads.job, self._wait, job)

    def depth(self) -> int:
        return sum(len(group.queue) for group in self.groups)

    def steps(self) -> tuple[int, int]:
        return self._steps, self._row_steps

    def group_of(self, workflow: str) -> Group | None:
        """None: nobody has it."""
        return next((group for group in self.groups if workflow in group.workflows), None)

    def dispatch(self, group: Group) -> None:
        """Begin whatever can begin. Where requests are dropped, others come into view."""
        while self._dispatch_first(group):
            pass

    def _dispatch_first(self, group: Group) -> bool:
        """Look at those that wait longest; whether some were dropped."""
        idle = [process for process in group.processes if not process.busy]
        ahead: Counter[str] = Counter()
        dropped = False
        for job in list(islice(group.queue, LOOKED_AT)) if idle else ():
            if job not in group.queue:
                continue  # it is drawn with another one
            if self._hopeless(job):
                dropped = True
                self.end(job, "failed", DeadlineExceeded.code)
                continue
            process = self._process_for(job, group, idle, ahead[job.wanted.name])
            if process is None:
                ahead[job.wanted.name] += job.wanted.images
                continue
            idle.remove(process)
            self._begin(process, self._batch(job, group, process), group)
            if not idle:
                return False
        return dropped

    def _wait(self, job: Job) -> None:
        if job.ended:
            return
        group = self.group_of(job.wanted.name)
        if group is None:
            self.end(job, "rejected", NotServed.code)
            return
        group.queue[job] = None
        job.holders.append(group)
        self.dispatch(group)

    def _hopeless(self, job: Job) -> bool:
        """Its deadline would pass even if it began now, on a device that holds its pipeline."""
        return self._slack(job, pipeline_seconds(self.profile, [job.wanted])) < 0.0

    def _slack(self, job: Job, seconds: float) -> float:
        if job.deadline is None:
            return float("inf")
        return job.deadline - self.clock.now - seconds

    def _process_for(
        self, job: Job, group: Group, idle: Sequence[PipelineProcess], ahead: int
    ) -> PipelineProcess | None:
        """An idle one that holds the pipeline; else one that loads it, if the job is done sooner by
        that than if it waited, with `ahead` pictures before it, for one that holds it, and in
        time."""
        name = job.wanted.name
        for process in idle:
            if name in process.resident:
                return process
        loading = self.profile.load_seconds_of(name)
        seconds = pipeline_seconds(self.profile, [job.wanted])
        wait = self._wait_for(job, [one for one in group.processes if name in one.resident], ahead)
        if loading >= wait or self._slack(job, loading + seconds) < 0.0:
            return None
        return min(idle, key=lambda one: (not self._fits(one, name), one.free_at))

    def _wait_for(self, job: Job, holders: Sequence[PipelineProcess], ahead: int) -> float:
        """Seconds until one of `holders`, all busy, begins with `job`, if they draw full batches of
        what is ahead of it."""
        if not holders:
            return float("inf")
        most = self._most(job.wanted)
        full = pipeline_seconds(self.profile, [job.wanted] * most)
        rounds = ahead // (most * len(holders))
        return min(one.free_at for one in holders) - self.clock.now + rounds * full

    def _fits(self, process: PipelineProcess, name: str) -> bool:
        used = sum(self.profile.bytes_of(each) for each in process.resident)
        return used + self.profile.bytes_of(name) <= self.profile.memory

    def _batch(self, job: Job, group: Group, process: PipelineProcess) -> list[Job]:
        """`job`, and those that had better be drawn with it."""
        key, most = job.wanted.batches_with, self._most(job.wanted)
        loading = self._loading(process, job.wanted.name)
        chosen, pictures = [job], job.wanted.images
        each = pipeline_seconds(self.profile, [job.wanted]) / pictures
        for other in islice(group.queue, LOOKED_AT):
            if other is job or other.wanted.batches_with != key:
                continue
            if pictures + other.wanted.images > most:
                break
            seconds = pipeline_seconds(self.profile, [one.wanted for one in (*chosen, other)])
            more = seconds / (pictures + other.wanted.images)
            if more > (1.0 - GAIN) * each or any(
                self._slack(one, loading + seconds) < 0.0 for one in (*chosen, other)
            ):
                break
            chosen.append(other)
            pictures, each = pictures + other.wanted.images, more
        return chosen

    def _most(self, wanted: Wanted) -> int:
        return self.profile.components[wanted.workflow.denoise].max_batch

    def _loading(self, process: PipelineProcess, name: str) -> float:
        return 0.0 if name in process.resident else self.profile.load_seconds_of(name)

    def _begin(self, process: PipelineProcess, batch: list[Job], group: Group) -> None:
        for job in batch:
            del group.queue[job]
        wanted = [job.wanted for job in batch]
        loading = self._loading(process, wanted[0].name)
        seconds = pipeline_seconds(self.profile, wanted)
        self._bring(process, wanted[0].name)
        pictures = sum(one.images for one in wanted)
        for job in batch:
            job.spent += seconds * job.wanted.images / pictures
        self._steps += wanted[0].steps
        self._row_steps += wanted[0].steps * pictures
        process.busy, process.free_at = True, self.clock.now + loading + seconds
        self.clock.after(loading, self._compute, process, batch, seconds)

    def _compute(self, process: PipelineProcess, batch: list[Job], seconds: float) -> None:
        process.device.begin(seconds, lambda: self._drawn(process, batch))

    def _bring(self, process: PipelineProcess, name: str) -> None:
        """Make it resident; the least recently used ones make room."""
        if name in process.resident:
            process.resident.move_to_end(name)
            return
        while process.resident and not self._fits(process, name):
            process.resident.popitem(last=False)
        process.resident[name] = None
        self.loads += 1

    def _drawn(self, process: PipelineProcess, batch: Iterable[Job]) -> None:
        process.busy = False
        for job in batch:
            self.end(job, "done")
        self.freed(process)

    def freed(self, process: PipelineProcess) -> None:
        """`process` has nothing to do any more."""
        group = next(group for group in self.groups if process in group.processes)
        self.dispatch(group)
