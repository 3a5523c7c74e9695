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


class ControlServer:
    """All processes of one ControlNet; who has least in hand is asked."""

    def __init__(self, processes: Iterable[ControlProcess]) -> None:
        self._processes = list(processes)

    def ask(self, ask: _Ask) -> None:
        min(self._processes, key=lambda one: one.units).ask(ask)


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
