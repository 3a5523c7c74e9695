"""Darkroom: every component in processes of its own, with queues between them, and the product's
own decisions: who pulls first, who steps with whom, who is given up, and which device holds what.

What components of one device compute at the same time shares it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from loadgen.simulator.cluster.beside import Beside
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.cluster.queue import Node
from loadgen.simulator.cluster.stepper import Ends, Schedule, Stepper
from loadgen.simulator.profiles.profile import Profile
from loadgen.simulator.systems.backlog import Backlog, Release
from loadgen.simulator.systems.base import System
from loadgen.simulator.systems.fleet import Fleet, Nodes
from loadgen.simulator.systems.placer import Placer
from shared.errors import DeadlineExceeded
from shared.policy.placement.place import place
from shared.policy.placement.state import Move
from shared.policy.release.decide import release
from shared.policy.step_scheduler import schedule_step

PLACING_SECONDS: Final = 1.0
"""Between two decisions about who holds what."""

Place = Callable[..., tuple[Move, ...]]
"""`place`, or what is measured in its place."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The product's decisions; a measurement may wrap them."""

    schedule: Schedule = schedule_step
    release: Release | None = release
    """None: every job is released when it comes."""
    place: Place | None = place
    """None: devices keep what they hold at first."""


class DarkroomSystem(System):
    """`placement`: the components of each of `devices` at first; `placer` changes it."""

    def __init__(
        self,
        clock: Clock,
        profile: Profile,
        devices: Sequence[Device],
        placement: Sequence[Iterable[str]],
        policies: Policies | None = None,
        placer: Placer | None = None,
    ) -> None:
        super().__init__(clock, profile, devices)
        self._policies = policies or Policies()
        self._entrance, self._relays = Beside(devices[0]), Beside(devices[0])
        nodes = Nodes(self._encoded, Ends(self._denoised, self._given_up), self._decoded)
        self._fleet = Fleet(clock, profile, devices, nodes, self._policies.schedule)
        self._backlog = Backlog(
            clock,
            self._fleet.reporters.values(),
            self._encode,
            self._refused,
            self._policies.release or release,
        )
        self._fleet.heard = self._backlog.heard
        self._fleet.begin(placement)
        self._placer = placer
        self._placing = False

    @property
    def steppers(self) -> Sequence[Stepper]:
        return self._fleet.steppers

    def came(self, job: Job) -> None:
        overheads = self.profile.overheads
        waits = max(0.0, overheads.job - overheads.cpu)
        self._entrance.do(overheads.cpu, lambda: self.clock.after(waits, self._planned, job))
        if self._placer is not None:
            self._placer.came(job)
            if not self._placing:
                self._placing = True
                self.clock.after(PLACING_SECONDS, self._place)

    def depth(self) -> int:
        return len(self._backlog) + sum(map(len, self._fleet.queues.values()))

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
            self._fleet.queues[component].push(Node(job, self.clock.now))

    def _given_up(self, job: Job) -> None:
        self.end(job, "failed", DeadlineExceeded.code)

    # ------------------------------------------------------------------------ placement

    def _place(self) -> None:
        """Once a second while jobs come, or wait."""
        placer = self._placer
        self._placing = placer is not None and self._active
        if placer is None:
            return
        waiting = {name: len(queue) for name, queue in self._fleet.queues.items()}
        for device, loads, unloads in placer.decide(self.clock.now, self._backlog.waiting, waiting):
            self._fleet.change(device, loads, unloads)
        self.loads = self._fleet.loads
        if self._placing:
            self.clock.after(PLACING_SECONDS, self._place)

    @property
    def _active(self) -> bool:
        """Whether anything is in hand that a change could help."""
        return bool(self.depth()) or any(map(len, self.steppers))


def _nothing() -> None:
    """What services do for a job beside its nodes is nobody's wait."""
