"""Devices by what their processes hold, and the ways in which one of them could be changed. Pure.

Most devices of a large fleet are alike, so they are counted by kind: what is decided about one of a
kind is decided once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.policy.placement.lateness import Holding, Lateness
from shared.policy.placement.state import Model, Process
from shared.policy.release.jobs import Component
from shared.services import NodeKind


class Slot(NamedTuple):
    """A process, as far as it decides what may be placed there."""

    kinds: frozenset[NodeKind]
    memory: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Devices that are alike: `slots` are their processes."""

    slots: tuple[Slot, ...]
    holding: Holding

    def holds(self, component: Component) -> bool:
        return any(component in held for held in self.holding)


class Change(NamedTuple):
    """A device of one kind becomes one of another. `loaded`: None if something only leaves."""

    before: Kind
    after: Kind
    loaded: Component | None
    dropped: tuple[Component, ...]


class Devices:
    """All of them; changes with every step of a decision."""

    def __init__(self, processes: Sequence[Process]) -> None:
        by_device: dict[str, list[Process]] = {}
        for process in processes:
            by_device.setdefault(process.device, []).append(process)
        self._names: dict[Kind, list[str]] = {}
        """Devices of each kind, the next to be changed last."""
        self.processes: dict[str, list[Process]] = by_device
        for name, here in by_device.items():
            self._names.setdefault(_kind(here), []).append(name)
        for names in self._names.values():
            names.reverse()
        self.counts: Counter[Holding] = Counter()
        for kind, names in self._names.items():
            self.counts[kind.holding] += len(names)

    def __repr__(self) -> str:
        return f"<Devices, {len(self.processes)} of {len(self._names)} kinds>"

    def kinds(self) -> list[Kind]:
        return [kind for kind, names in self._names.items() if names]

    def has(self, kind: Kind) -> bool:
        return bool(self._names.get(kind))

    def after(self, *changes: Change) -> Counter[Holding]:
        """How many devices would hold what."""
        found = self.counts.copy()
        for change in changes:
            found[change.before.holding] -= 1
            found[change.after.holding] += 1
        return found

    def has_one(self, component: Component) -> bool:
        """Whether there is a single replica."""
        replicas = sum(n for held, n in self.counts.items() if any(component in h for h in held))
        return replicas == 1

    def apply(self, change: Change) -> str | None:
        """Returns the device that was changed; None: there is none of that kind any more."""
        names = self._names[change.before]
        if not names:
            return None
        name = names.pop()
        self._names.setdefault(change.after, []).append(name)
        self.counts[change.before.holding] -= 1
        self.counts[change.after.holding] += 1
        return name


def changes(
    kind: Kind, loaded: Component, models: Mapping[Component, Model], lateness: Lateness
) -> Iterator[Change]:
    """Ways to serve `loaded` on such a device: beside all that it holds, instead of one of that,
    or instead of everything that is asked for. What has no room leaves, the cheapest to bring
    again first."""
    if kind.holds(loaded):
        return
    asked = lateness.asked(kind.holding)
    active = (*asked.steps, *asked.aside)
    for number, slot in enumerate(kind.slots):
        if loaded[0] not in slot.kinds or models[loaded].bytes > slot.memory:
            continue
        leaving: list[tuple[Component, ...]] = [(), *((one,) for one in active)]
        if len(active) > 1:
            leaving.append(active)
        for names in leaving:
            change = _changed(kind, number, loaded, names, models, lateness)
            if change is not None:
                yield change


def removals(kind: Kind, lateness: Lateness) -> Iterator[Change]:
    """Ways to leave such a device to the others that it holds."""
    asked = lateness.asked(kind.holding)
    active = (*asked.steps, *asked.aside)
    for name in active if len(active) > 1 else ():
        yield Change(kind, without(kind, (name,)), None, (name,))


def without(kind: Kind, names: Iterable[Component]) -> Kind:
    gone = frozenset(names)
    return Kind(kind.slots, tuple(held - gone for held in kind.holding))


def added(kind: Kind, component: Component, models: Mapping[Component, Model]) -> Kind | None:
    """The device with `component` as well; None if no process of it has room."""
    for number, slot in enumerate(kind.slots):
        held = kind.holding[number]
        needed = models[component].bytes + _bytes(held, models)
        if component[0] in slot.kinds and needed <= slot.memory:
            return _put(kind, number, component)
    return None


def _changed(
    kind: Kind,
    number: int,
    loaded: Component,
    names: tuple[Component, ...],
    models: Mapping[Component, Model],
    lateness: Lateness,
) -> Change | None:
    left = without(kind, names)
    here, slot = left.holding[number], kind.slots[number]
    dropped = list(names)
    for name in sorted(here, key=lambda name: (_keeping(name, models, lateness), name)):
        if _bytes(here, models) + models[loaded].bytes <= slot.memory:
            break
        here = here - {name}
        dropped.append(name)
    if _bytes(here, models) + models[loaded].bytes > slot.memory:
        return None
    left = Kind(kind.slots, (*left.holding[:number], here, *left.holding[number + 1 :]))
    return Change(kind, _put(left, number, loaded), loaded, tuple(dropped))


def _keeping(name: Component, models: Mapping[Component, Model], lateness: Lateness) -> float:
    """What it costs to bring it again, times how likely it is wanted, per byte."""
    model = models.get(name)
    if model is None:
        return 0.0
    return lateness.rate(name) * (1.0 + model.load_seconds) / max(1, model.bytes)


def _put(kind: Kind, number: int, component: Component) -> Kind:
    held = kind.holding[number] | {component}
    return Kind(kind.slots, (*kind.holding[:number], held, *kind.holding[number + 1 :]))


def _bytes(names: Iterable[Component], models: Mapping[Component, Model]) -> int:
    return sum(models[name].bytes for name in names if name in models)


def _kind(processes: Sequence[Process]) -> Kind:
    return Kind(
        tuple(Slot(process.kinds, process.memory) for process in processes),
        tuple(process.holds for process in processes),
    )
