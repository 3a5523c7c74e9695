"""The processes of a simulated fleet: each device holds components, which come and leave while the
fleet runs.

A device loads one component after another. What leaves gives back what it has not begun, and
finishes the rest first.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from loadgen.simulator.cluster.batcher import Batcher
from loadgen.simulator.cluster.belief import learnt
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.controls import ControlProcess, ControlProcesses, ControlServer
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.draining import DrainingStepper
from loadgen.simulator.cluster.queue import Node, Place, WorkQueue
from loadgen.simulator.cluster.runs import Runs
from loadgen.simulator.cluster.stepper import Ends, Schedule
from loadgen.simulator.profiles.profile import Profile, Workflow
from loadgen.simulator.systems.parts import size_of
from loadgen.simulator.systems.reports import BatcherSource, Reporter, Source, StepperSource
from shared.config import Settings
from shared.policy.batch_bounds import DECODING, ENCODING
from shared.policy.release.jobs import Component
from shared.policy.step_scheduler import Limits

LEAST_GRACE: Final = Settings().deadline_margin
"""Seconds before a deadline at which denoising should be over, by default."""


class Held(Protocol):
    """A component in a process."""

    def drain(self, drained: Callable[[], None]) -> None: ...

    def pull(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Nodes:
    """What is called with nodes that a kind of component has finished."""

    encoded: Callable[[Node], None]
    denoised: Ends
    decoded: Callable[[Node], None]


@dataclass(slots=True)
class _Loader:
    """Of one device: what it still has to load, first to last."""

    queue: list[str]
    loading: str | None = None
    leaving: int = 0
    """Components that have to be gone before the next one is loaded."""
    unwanted: bool = False
    """What is being loaded is not wanted any more."""


class Fleet:
    """`queues`: of all components. `heard` is called whenever a process has told how it stands."""

    def __init__(
        self,
        clock: Clock,
        profile: Profile,
        devices: Sequence[Device],
        nodes: Nodes,
        schedule: Schedule,
    ) -> None:
        self._clock, self._profile, self._devices = clock, profile, devices
        self._nodes, self._schedule = nodes, schedule
        self.queues: Final = {name: WorkQueue(name) for name in profile.components}
        self.steppers: list[DrainingStepper] = []
        """That are there, or were."""
        self.reporters: dict[tuple[int, str], Reporter] = {}
        """By device and component."""
        self.heard: Callable[[], None] = lambda: None
        self.loads = 0
        self._held: dict[tuple[int, str], Held] = {}
        self._controls = {
            name: ControlProcesses()
            for name, component in profile.components.items()
            if component.kind == "controlnet"
        }
        self._alike: defaultdict[str, list[DrainingStepper]] = defaultdict(list)
        self._loaders = [_Loader([]) for _ in devices]
        self._started = 0

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._devices)} devices, {len(self._held)} components>"

    def begin(self, placement: Sequence[Iterable[str]]) -> None:
        """Hold that from the start, device by device."""
        for device, names in enumerate(placement):
            for name in names:
                self._hold(device, name)
        for held in self._held.values():
            held.pull()

    def change(self, device: int, loads: Sequence[str], unloads: Sequence[str]) -> None:
        """Take out and bring in components, while everything else goes on."""
        loader = self._loaders[device]
        loader.queue += loads
        for name in unloads:
            if name in loader.queue:
                loader.queue.remove(name)
            elif name == loader.loading:
                loader.unwanted = True
            elif (device, name) in self._held:
                loader.leaving += 1
                self._drain(device, name)
        self._load(device)

    def _load(self, device: int) -> None:
        loader = self._loaders[device]
        if loader.queue and loader.loading is None and not loader.leaving:
            loader.loading = name = loader.queue.pop(0)
            self.loads += 1
            seconds = self._profile.components[name].load_seconds
            self._clock.after(seconds, self._loaded, device, name)

    def _loaded(self, device: int, name: str) -> None:
        loader = self._loaders[device]
        unwanted, loader.loading, loader.unwanted = loader.unwanted, None, False
        if not unwanted:
            self._hold(device, name)
            self._held[device, name].pull()
            self.heard()
        self._load(device)

    def _drain(self, device: int, name: str) -> None:
        held = self._held.pop((device, name))
        self.reporters.pop((device, name), None)
        if isinstance(held, DrainingStepper):
            self._alike[name].remove(held)
            self._acquaint(name)
        held.drain(partial(self._gone, device))

    def _gone(self, device: int) -> None:
        self._loaders[device].leaving -= 1
        self._load(device)

    def _hold(self, device: int, name: str) -> None:
        component, at = self._profile.components[name], self._devices[device]
        place = Place(self._clock, at, component, self.queues[name])
        match component.kind:
            case "encode":
                batcher = Batcher(place, ENCODING.capacity, _prompts, self._nodes.encoded)
                self._batch(device, ("encode", name), batcher)
            case "decode":
                batcher = Batcher(place, DECODING.capacity, _pictures, self._nodes.decoded)
                self._batch(device, ("decode", name), batcher)
            case "denoise":
                stepper = self._stepper(place, name)
                self.steppers.append(stepper)
                self._alike[name].append(stepper)
                self._acquaint(name)
                source = StepperSource(self._name(), ("denoise", name), stepper)
                self._report(device, name, stepper, source)
            case "controlnet":
                self._controls[name].add(at, ControlProcess(at, component))
                self._held[device, name] = _HeldControl(self._controls[name], at)

    def _acquaint(self, name: str) -> None:
        """Denoisers of one component know each other, where they help each other."""
        alike = self._alike[name]
        for one in alike if self._profile.overheads.split is not None else ():
            one.others = [each for each in alike if each is not one]

    def _batch(self, device: int, component: Component, batcher: Batcher) -> None:
        source = BatcherSource(self._name(), component, batcher)
        self._report(device, component[1], batcher, source)

    def _report(
        self, device: int, name: str, held: Batcher | DrainingStepper, source: Source
    ) -> None:
        reporter = Reporter(self._clock, self._started, source)
        reporter.heard = lambda: self.heard()
        held.changed = reporter.wake
        self.reporters[device, name] = reporter
        self._held[device, name] = held
        self._started += 1

    def _name(self) -> str:
        """Of the next process."""
        return str(self._started)

    def _stepper(self, place: Place, name: str) -> DrainingStepper:
        workflow = next(each for each in self._profile.workflows.values() if each.denoise == name)
        most = place.component.max_batch
        return DrainingStepper(
            place,
            learnt(place.component, workflow.positions, 2 if workflow.guided else 1),
            Limits(
                max_rows=most,
                max_admitted=most,
                max_waiting=2 * most,
                max_step_seconds=10.0,
                deadline_grace=self._grace(workflow),
            ),
            partial(Runs, place, self._profile.overheads, self._near(place.device)),
            self._nodes.denoised,
            self._schedule,
        )

    def _near(self, device: Device) -> dict[str, ControlServer]:
        """ControlNets as a denoiser there asks them."""
        return {name: ControlServer(one, device) for name, one in self._controls.items()}

    def _grace(self, workflow: Workflow) -> float:
        """What follows denoising, on an idle device."""
        decoding = self._profile.components[workflow.decode].cost.seconds(1.0)
        return max(LEAST_GRACE, self._profile.overheads.node + decoding)


@dataclass(frozen=True, slots=True)
class _HeldControl:
    """It is asked directly, and has no queue."""

    processes: ControlProcesses
    device: Device

    def drain(self, drained: Callable[[], None]) -> None:
        self.processes.remove(self.device)
        drained()

    def pull(self) -> None:
        pass


def _prompts(node: Node) -> float:
    return node.job.wanted.forwards


def _pictures(node: Node) -> float:
    return size_of(node.job.wanted)
