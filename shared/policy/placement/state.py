"""What placement knows: components, the processes that may hold them, and what is asked of them.

Everything here is a fact or a measurement of somebody else; nothing refers to a clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.policy.release.jobs import Component
from shared.services import NodeKind

CLEARING_SECONDS: Final = 10.0
"""In which what waits should be worked off: a backlog counts as so much more arrival."""
USUAL_SLACK: Final = 1.0
"""Times what a job takes that it may wait, where it has no deadline."""


@dataclass(frozen=True, slots=True)
class Model:
    """A component that can be placed. `load_seconds`: until a process that was told to load it
    serves it. `beside`: components within whose steps it is asked; next to one of them it computes
    while that one waits, and takes nothing from it."""

    component: Component
    bytes: int
    load_seconds: float = 0.0
    beside: tuple[Component, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """One that can hold components of `kinds`, `memory` bytes of them. What processes of one
    `device` compute at the same time shares it. `holds`: what it serves, or is loading."""

    name: str
    device: str
    kinds: frozenset[NodeKind]
    memory: int
    holds: frozenset[Component] = frozenset()


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of one component.

    `rate`: jobs a second. `trend`: by how much that grows in a second. `seconds`: of one device
    that a job takes. `backlog`: seconds of one device that wait. `slack`: seconds that a job may
    wait until it is late; None: its jobs have no deadlines. `idle`: seconds since it was asked
    for."""

    rate: float = 0.0
    seconds: float = 0.0
    trend: float = 0.0
    backlog: float = 0.0
    slack: float | None = None
    idle: float = 0.0

    @property
    def wanted(self) -> bool:
        return self.rate > 0.0 or self.backlog > 0.0

    @property
    def patience(self) -> float:
        """Seconds that a job may wait."""
        return USUAL_SLACK * self.seconds if self.slack is None else max(0.0, self.slack)

    def rate_in(self, seconds: float) -> float:
        """Jobs a second that have to be served if something is changed now that takes so long: what
        comes then, and what waits already."""
        coming = max(0.0, self.rate + self.trend * seconds)
        waiting = self.backlog / self.seconds if self.seconds > 0.0 else float(self.backlog > 0.0)
        return coming + waiting / CLEARING_SECONDS


@dataclass(frozen=True, slots=True)
class Move:
    """`process` unloads what is in `unloads`, once its rows are done or handed over, and then loads
    what is in `loads`."""

    process: str
    loads: tuple[Component, ...] = ()
    unloads: tuple[Component, ...] = ()


@dataclass(frozen=True, slots=True)
class Costs:
    """What a change costs, and what it has to bring."""

    payback_seconds: float = 60.0
    """A change has to have paid for itself by then."""
    margin: float = 0.03
    """Share of a component's jobs that have to become punctual for which something else leaves, or
    has to share its device."""
    interference: float = 0.1
    """Share of a device that denoising loses if something else computes there now and then: nobody
    can foretell how long its steps take."""
    cold_seconds: float = 300.0
    """After which what nobody asks for leaves, whether or not its place is wanted."""
    most_moves: int = 64
    """Processes that are told to change in one decision."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What every process holds, by name; what `place` makes of it is another one."""

    processes: Mapping[str, Process] = field(default_factory=dict)

    @classmethod
    def of(cls, processes: Sequence[Process]) -> "Layout":
        return cls({process.name: process for process in processes})


def moved(processes: Sequence[Process], moves: Sequence[Move]) -> list[Process]:
    """The same processes after `moves`."""
    by_name = {move.process: move for move in moves}
    found = []
    for process in processes:
        move = by_name.get(process.name)
        if move is not None:
            holds = process.holds.difference(move.unloads).union(move.loads)
            process = Process(process.name, process.device, process.kinds, process.memory, holds)
        found.append(process)
    return found
