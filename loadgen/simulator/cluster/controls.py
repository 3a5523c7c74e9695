"""ControlNets that are asked in every step: what several denoisers ask at the same time is computed
together (`services/controlnet`)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.device import Device
from loadgen.simulator.cluster.job import Job
from loadgen.simulator.profiles.profile import Component

MAX_UNITS: Final = 32.0
"""In one forward (`services/controlnet/steps.py`), unless a single step has more."""


class Steered(Protocol):
    @property
    def job(self) -> Job: ...


@dataclass(frozen=True, slots=True)
class _Ask:
    units: float
    jobs: tuple[Job, ...]
    answered: Callable[[], None]


class ControlProcess:
    """One process that holds the component."""

    def __init__(self, device: Device, component: Component) -> None:
        self._device, self._component = device, component
        self._waiting: list[_Ask] = []
        self._batch: list[_Ask] = []
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<ControlProcess {len(self._batch)} + {len(self._waiting)}>"

    @property
    def units(self) -> float:
        """That it has in hand."""
        return sum(ask.units for ask in (*self._batch, *self._waiting))

    def ask(self, ask: _Ask) -> None:
        self._waiting.append(ask)
        self._begin()

    def _begin(self) -> None:
        if self._batch or not self._waiting:
            return
        units = 0.0
        while self._waiting and (not self._batch or units + self._waiting[0].units <= MAX_UNITS):
            ask = self._waiting.pop(0)
            units += ask.units
            self._batch.append(ask)
        seconds = self._component.cost.seconds(units)
        self.seconds += seconds
        for ask in self._batch:
            for job in ask.jobs:
                job.spent += seconds * job.wanted.units / units
        self._device.begin(seconds, self._computed)

    def _computed(self) -> None:
        batch, self._batch = self._batch, []
        self._begin()
        for ask in batch:
            ask.answered()


class ControlProcesses:
    """All processes of one ControlNet, by their devices, as they come and leave."""

    def __init__(self) -> None:
        self._processes: dict[Device, ControlProcess] = {}
        self._unanswered: list[tuple[Device, _Ask]] = []
        """Asked while nobody held the component."""

    def __repr__(self) -> str:
        return f"<ControlProcesses, {len(self._processes)} of them>"

    def add(self, device: Device, process: ControlProcess) -> None:
        self._processes[device] = process
        unanswered, self._unanswered = self._unanswered, []
        for near, ask in unanswered:
            self.ask(near, ask)

    def remove(self, device: Device) -> None:
        """It is asked nothing more; what it has in hand it answers."""
        del self._processes[device]

    def ask(self, near: Device, ask: _Ask) -> None:
        """The process on `near`, or else the one that has least in hand."""
        if not self._processes:
            self._unanswered.append((near, ask))
        elif near in self._processes:
            self._processes[near].ask(ask)
        else:
            min(self._processes.values(), key=lambda one: one.units).ask(ask)


@dataclass(frozen=True, slots=True)
class ControlServer:
    """As a denoiser on `device` asks it."""

    processes: ControlProcesses
    device: Device

    def ask(self, ask: _Ask) -> None:
        self.processes.ask(self.device, ask)


def ask_all(
    clock: Clock,
    servers: Mapping[str, ControlServer],
    rows: Iterable[Steered],
    way: float,
    answered: Callable[[], None],
) -> None:
    """Ask every ControlNet of a step's `rows`, and call `answered` once all answers are there.
    `way`: seconds there and back."""
    wanted: dict[str, list[Job]] = {}
    for row in rows:
        for name in row.job.wanted.workflow.controls:
            wanted.setdefault(name, []).append(row.job)
    missing = len(wanted)

    def one_more() -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            answered()

    for name, jobs in wanted.items():
        units = sum(job.wanted.units for job in jobs)
        ask = _Ask(units, tuple(jobs), lambda: clock.after(way / 2, one_more))
        clock.after(way / 2, partial(servers[name].ask, ask))
