"""Darkroom: every component in processes of its own, with queues between them, and the product's
own decisions: who pulls first, who steps with whom, who is given up.

A device holds a process for each of its components; what they compute at the same time shares it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.simulator.cluster.batcher import Batcher
from loadgen.simulator.cluster.belief import learnt
from loadgen.simulator.cluster.beside import Beside
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.controls import ControlProcess, ControlServer
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.cluster.queue import Node, Place, WorkQueue
from loadgen.simulator.cluster.stepper import Ends, Schedule, Stepper
from loadgen.simulator.profiles.profile import Profile, Workflow
from loadgen.simulator.systems.backlog import Backlog, Release
from loadgen.simulator.systems.base import System
from loadgen.simulator.systems.placement import size_of
from loadgen.simulator.systems.reports import BatcherSource, Reporter, Source, StepperSource
from shared.config import Settings
from shared.errors import DeadlineExceeded
from shared.policy.batch_bounds import DECODING, ENCODING
from shared.policy.release.decide import release
from shared.policy.release.jobs import Component
from shared.policy.step_scheduler import Limits, schedule_step

LEAST_GRACE: Final = Settings().deadline_margin
"""Seconds before a deadline at which denoising should be over, by default."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The product's decisions; a measurement may wrap them."""

    schedule: Schedule = schedule_step
    release: Release | None = release
    """None: every job is released when it comes."""


class DarkroomSystem(System):
    """`placement`: the components of each of `devices`."""

    def __init__(
        self,
        clock: Clock,
        profile: Profile,
        devices: Sequence[Device],
        placement: Sequence[Sequence[str]],
        policies: Policies | None = None,
    ) -> None:
        super().__init__(clock, profile, devices)
        self._policies = policies or Policies()
        self.queues = {name: WorkQueue(name) for name in profile.components}
        self.steppers: list[Stepper] = []
        self.batchers: list[Batcher] = []
        self._reporters: list[Reporter] = []
        self._entrance, self._relays = Beside(devices[0]), Beside(devices[0])
        everywhere: dict[str, list[ControlProcess]] = {}
        here = [self._controls(*at, everywhere) for at in zip(devices, placement, strict=True)]
        shared = {name: ControlServer(processes) for name, processes in everywhere.items()}
        for device, names, own in zip(devices, placement, here, strict=True):
            for name in names:
                self._hold(device, name, {**shared, **own})
        self._backlog = Backlog(
            clock, self._reporters, self._encode, self._refused, self._policies.release or release
        )
        for one in self.steppers if profile.overheads.split is not None else ():
            one.others = [each for each in self.steppers if each.serves(one) and each is not one]
        for batcher in self.batchers:
            batcher.pull()
        for stepper in self.steppers:
            stepper.pull()

    def came(self, job: Job) -> None:
        overheads = self.profile.overheads
        waits = max(0.0, overheads.job - overheads.cpu)
        self._entrance.do(overheads.cpu, lambda: self.clock.after(waits, self._planned, job))

    def depth(self) -> int:
        return len(self._backlog) + sum(map(len, self.queues.values()))

    def steps(self) -> tuple[int, int]:
        counts = [stepper.counts for stepper in self.steppers]
        return sum(one.steps for one in counts), sum(one.row_steps for one in counts)

    # ------------------------------------------------------------------------ one job's life

    def _planned(self, job: Job) -> None:
        if job.ended:
            return
        if self._policies.release is None:
            self._encode(job)
        else:
            self._backlog.submit(job)

    def _refused(self, job: Job, reason: str) -> None:
        self.end(job, "rejected", reason)

    def _encode(self, job: Job) -> None:
        self._relays.do(self.profile.overheads.drawn_cpu, _nothing)
        self._push(job.wanted.workflow.encode, job)

    def _encoded(self, node: Node) -> None:
        for _ in range(node.job.wanted.images):
            self._later(node.job.wanted.workflow.denoise, node.job)

    def _denoised(self, node: Node) -> None:
        self._later(node.job.wanted.workflow.decode, node.job)

    def _decoded(self, node: Node) -> None:
        node.job.missing -= 1
        if not node.job.missing:
            self.end(node.job, "done")

    def _later(self, component: str, job: Job) -> None:
        self.clock.after(self.profile.overheads.node, self._push, component, job)

    def _push(self, component: str, job: Job) -> None:
        if not job.ended:
            self.queues[component].push(Node(job, self.clock.now))

    def _given_up(self, job: Job) -> None:
        self.end(job, "failed", DeadlineExceeded.code)

    # ------------------------------------------------------------------------ processes

    def _controls(
        self, device: Device, names: Sequence[str], everywhere: dict[str, list[ControlProcess]]
    ) -> dict[str, ControlServer]:
        """Those of a device, which its own denoisers ask first."""
        found = {}
        for name in names:
            component = self.profile.components[name]
            if component.kind == "controlnet":
                process = ControlProcess(device, component)
                everywhere.setdefault(name, []).append(process)
                found[name] = ControlServer([process])
        return found

    def _hold(self, device: Device, name: str, controls: Mapping[str, ControlServer]) -> None:
        match self.profile.components[name].kind:
            case "encode":
                place, capacity = self._place(device, name), ENCODING.capacity
                self._batch(Batcher(place, capacity, _prompts, self._encoded), ("encode", name))
            case "decode":
                place, capacity = self._place(device, name), DECODING.capacity
                self._batch(Batcher(place, capacity, _pictures, self._decoded), ("decode", name))
            case "denoise":
                stepper = self._stepper(device, name, controls)
                self.steppers.append(stepper)
                source = StepperSource(self._name(), ("denoise", name), stepper)
                stepper.changed = self._reporter(source).wake

    def _batch(self, batcher: Batcher, component: Component) -> None:
        self.batchers.append(batcher)
        batcher.changed = self._reporter(BatcherSource(self._name(), component, batcher)).wake

    def _reporter(self, source: Source) -> Reporter:
        reporter = Reporter(self.clock, len(self._reporters), source)
        self._reporters.append(reporter)
        return reporter

    def _name(self) -> str:
        """Of the next process."""
        return str(len(self._reporters))

    def _place(self, device: Device, name: str) -> Place:
        return Place(self.clock, device, self.profile.components[name], self.queues[name])

    def _stepper(self, device: Device, name: str, controls: Mapping[str, ControlServer]) -> Stepper:
        component = self.profile.components[name]
        workflow = next(each for each in self.profile.workflows.values() if each.denoise == name)
        return Stepper(
            self._place(device, name),
            learnt(component, workflow.positions, 2 if workflow.guided else 1),
            Limits(
                max_rows=component.max_batch,
                max_admitted=component.max_batch,
                max_waiting=2 * component.max_batch,
                max_step_seconds=10.0,
                deadline_grace=self._grace(workflow),
            ),
            self.profile.overheads,
            controls,
            Ends(self._denoised, self._given_up),
            self._policies.schedule,
        )

    def _grace(self, workflow: Workflow) -> float:
        """What follows denoising, on an idle device."""
        decoding = self.profile.components[workflow.decode].cost.seconds(1.0)
        return max(LEAST_GRACE, self.profile.overheads.node + decoding)


def _prompts(node: Node) -> float:
    return node.job.wanted.forwards


def _pictures(node: Node) -> float:
    return size_of(node.job.wanted)


def _nothing() -> None:
    """What services do for a job beside its nodes is nobody's wait."""
