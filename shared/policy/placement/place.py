"""Which process takes in which components, and what leaves for them. Pure.

A placement is as good as few jobs are late with it (`lateness.py`). From what the processes hold
now, the change of one device that saves most is made again and again, as long as a change pays for
itself: for the time that it takes to load, what left is missed. Each change makes fewer jobs late,
so under constant demand no placement comes twice: nothing moves back and forth, and at some time
nothing moves at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from shared.policy.placement.devices import (
    Change,
    Devices,
    Kind,
    added,
    changes,
    removals,
    without,
)
from shared.policy.placement.lateness import Lateness
from shared.policy.placement.state import Costs, Demand, Model, Move, Process
from shared.policy.release.jobs import Component

LOOKED_AT: Final = 6
"""Components, those with the most late jobs, that a place is looked for in one step."""
NOTHING: Final = 1e-9
"""Share of a component's jobs that is none."""
ALIKE: Final = 0.5
"""The change that was best is made again, on the next device of the same kind, while it saves so
much of what it saved first."""
USUAL: Final = Costs()


def place(
    models: Sequence[Model],
    processes: Sequence[Process],
    demand: Mapping[Component, Demand],
    costs: Costs = USUAL,
) -> tuple[Move, ...]:
    """What is to be changed now; nothing, most of the time. Processes that are told to change are
    given as they will be, the next time: `Process.holds` counts what is being loaded."""
    return _Placing(models, processes, demand, costs).decide()


@dataclass(frozen=True, slots=True)
class _Worth:
    changes: tuple[Change, ...]
    saved: float
    """Jobs a second that are not late any more, less those that are while it loads."""


class _Placing:
    """One decision."""

    def __init__(
        self,
        models: Sequence[Model],
        processes: Sequence[Process],
        demand: Mapping[Component, Demand],
        costs: Costs,
    ) -> None:
        self._models = {model.component: model for model in models}
        self._demand, self._costs = demand, costs
        self._lateness = Lateness(models, demand, costs)
        self._processes = processes
        self._devices = Devices(processes)
        self._changed: dict[str, Kind] = {}
        """What devices are to become."""

    def decide(self) -> tuple[Move, ...]:
        self._unload_cold()
        while len(self._changed) < self._costs.most_moves:
            best = self._best()
            if best is None:
                break
            self._repeat(best)
        self._bring_companions()
        return tuple(self._moves())

    def _unload_cold(self) -> None:
        """What nobody has asked for in a long time."""
        cold = {
            name
            for name, asked in self._demand.items()
            if not asked.wanted and asked.idle >= self._costs.cold_seconds
        }
        for kind in self._devices.kinds():
            names = tuple(sorted(name for name in cold if kind.holds(name)))
            if names:
                self._all_of(Change(kind, without(kind, names), None, names))

    def _best(self) -> _Worth | None:
        """The change that saves most of those that are worth it; if there is none, an exchange."""
        each = self._lateness.each(self._devices.counts)
        late = sum(each.values())
        possible = list(self._possible(each))
        single = self._most(((change,) for change in possible), late)
        return single or self._most(self._exchanges(possible), late)

    def _most(self, possible: Iterable[tuple[Change, ...]], late: float) -> _Worth | None:
        best: _Worth | None = None
        for several in possible:
            found = self._worth(several, late)
            if found is not None and (best is None or found.saved > best.saved + NOTHING):
                best = found
        return best

    def _exchanges(self, possible: Iterable[Change]) -> Iterator[tuple[Change, Change]]:
        """What would take the only replica of something from a device, with a new place for
        that."""
        for change in possible:
            only = [name for name in change.dropped if self._is_needed(name)]
            for kind in self._devices.kinds() if len(only) == 1 else ():
                if kind != change.before:
                    for other in changes(kind, only[0], self._models, self._lateness):
                        yield change, other

    def _is_needed(self, name: Component) -> bool:
        return self._lateness.rate(name) > 0.0 and self._devices.has_one(name)

    def _possible(self, late: Mapping[Component, float]) -> Iterator[Change]:
        wanting = sorted(
            (name for name, jobs in late.items() if jobs > NOTHING * self._lateness.rate(name)),
            key=lambda name: (-late[name], name),
        )
        for kind in self._devices.kinds():
            for name in wanting[:LOOKED_AT]:
                yield from changes(kind, name, self._models, self._lateness)
            yield from removals(kind, self._lateness)

    def _worth(self, changes: tuple[Change, ...], late: float) -> _Worth | None:
        """None: they save too little."""
        saved = late - self._lateness.of(self._devices.after(*changes))
        if saved <= sum(map(self._least, changes)):
            return None
        net = saved - sum(self._missed(change, saved, late) for change in changes)
        return _Worth(changes, net) if net > 0.0 else None

    def _missed(self, change: Change, saved: float, late: float) -> float:
        """Jobs a second, over the time in which the change has to pay, that are late because it
        takes so long to load, and because what had to leave is missed meanwhile."""
        if change.loaded is None:
            return 0.0
        gone = Change(change.before, without(change.before, change.dropped), None, change.dropped)
        meanwhile = self._lateness.of(self._devices.after(gone))
        seconds = min(self._models[change.loaded].load_seconds, self._costs.payback_seconds)
        return (saved + max(0.0, meanwhile - late)) * seconds / self._costs.payback_seconds

    def _least(self, change: Change) -> float:
        """Jobs a second that a change has to save. Whoever takes a place that nobody uses need not
        save many."""
        rate = self._lateness.rate
        if change.loaded is None:
            asked = self._lateness.asked(change.after.holding)
            return self._costs.margin * max(map(rate, (*asked.steps, *asked.aside)), default=inf)
        before = self._lateness.asked(change.before.holding)
        used = before.steps or before.aside
        return (self._costs.margin if used else NOTHING) * rate(change.loaded)

    def _repeat(self, best: _Worth) -> None:
        """Make the change, and on as many devices of its kind as it is worth it for."""
        worth: _Worth | None = best
        while worth is not None and worth.saved >= ALIKE * best.saved:
            for change in worth.changes:
                self._apply(change)
            if len(self._changed) >= self._costs.most_moves or len(best.changes) > 1:
                return
            if not self._devices.has(best.changes[0].before):
                return
            worth = self._worth(best.changes, self._lateness.of(self._devices.counts))

    def _bring_companions(self) -> None:
        """What is asked within steps goes to every device that takes such steps, where there is
        room."""
        for name in sorted(self._lateness.wanted):
            model = self._models[name]
            for kind in self._devices.kinds() if model.beside else ():
                steps = self._lateness.asked(kind.holding).steps
                if kind.holds(name) or not set(steps).intersection(model.beside):
                    continue
                after = added(kind, name, self._models)
                if after is not None:
                    self._all_of(Change(kind, after, name, ()))

    def _all_of(self, change: Change) -> None:
        while len(self._changed) < self._costs.most_moves and self._apply(change):
            pass

    def _apply(self, change: Change) -> bool:
        device = self._devices.apply(change)
        if device is not None:
            self._changed[device] = change.after
        return device is not None

    def _moves(self) -> Iterator[Move]:
        for device in self._changed:
            here = self._devices.processes[device]
            for process, held in zip(here, self._changed[device].holding, strict=True):
                if held != process.holds:
                    yield Move(
                        process.name,
                        tuple(sorted(held - process.holds)),
                        tuple(sorted(process.holds - held)),
                    )
