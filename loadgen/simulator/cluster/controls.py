"""ControlNets that are asked in every step: what several denoisers ask at the same time is computed
together (`services/controlnet`)."""

from collections.abc import Callable, Iterable
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
class Ask:
    units: float
    jobs: tuple[Job, ...]
    answered: Callable[[], None]


class ControlProcess:
    """One process that holds the component."""

    def __init__(self, device: Device, component: Component) -> None:
        self._device, self._component = device, component
        self._waiting: list[Ask] = []
        self._batch: list[Ask] = []
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<ControlProcess {len(self._batch)} + {len(self._waiting)}>"

    @property
    def units(self) -> float:
        """That it has in hand."""
        return sum(ask.units for ask in (*self._batch, *self._waiting))

    def ask(self, ask: Ask) -> None:
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


class ControlServers:
    """All processes of all ControlNets."""

    def __init__(self) -> None:
        self._processes: dict[str, dict[Device, ControlProcess]] = {}
        self._unanswered: dict[str, list[tuple[Device, Ask]]] = {}
        """Asked while nobody held the component."""

    def __repr__(self) -> str:
        return f"<ControlServers of {', '.join(self._processes)}>"

    def add(self, name: str, device: Device, process: ControlProcess) -> None:
        self._processes.setdefault(name, {})[device] = process
        for near, ask in self._unanswered.pop(name, ()):
            self.ask(near, name, ask)

    def remove(self, name: str, device: Device) -> None:
        """It is asked nothing more; what it has in hand it answers."""
        del self._processes[name][device]

    def ask(self, near: Device, name: str, ask: Ask) -> None:
        """The process on `near`, or else the one that has least in hand."""
        held = self._processes.get(name)
        if not held:
            self._unanswered.setdefault(name, []).append((near, ask))
        elif near in held:
            held[near].ask(ask)
        else:
            min(held.values(), key=lambda one: one.units).ask(ask)


def ask_all(
    clock: Clock,
    ask: Callable[[str, Ask], None],
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
        one = Ask(units, tuple(jobs), lambda: clock.after(way / 2, one_more))
        clock.after(way / 2, partial(ask, name, one))
