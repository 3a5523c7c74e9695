"""How many jobs a second are late with a placement, by prediction. Pure.

Every component is a queue that its replicas serve together, each with the share of its device that
is left to it. A job that would wait longer than it may is refused, so the queue is stable however
much is asked: M/M/1 with impatient customers (Barrer 1957), whose server is as quick as all
replicas together.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from math import exp
from typing import Final, NamedTuple

from shared.policy.placement.state import Costs, Demand, Model
from shared.policy.release.jobs import Component

Holding = tuple[frozenset[Component], ...]
"""What the processes of one device hold, each of them."""

MOST_EXPONENT: Final = 500.0
EVEN: Final = 1e-9
"""Utilisations so close to 1 are 1."""
BUSIEST: Final = 0.95
"""Of a device, by what computes beside denoising: a little is left to denoising in any case."""
UNSERVED: Final = 10.0
"""Times as bad as a late job is one that nobody can do anything for: what other components have
computed for it is in vain."""
TIE: Final = 1e-3
"""A replica that makes nobody punctual still makes the others less busy; that counts so much."""


def lost_share(utilisation: float, patience: float) -> float:
    """Share of the jobs that are late or refused, if each may wait for as long as `patience` jobs
    take one after another."""
    if utilisation <= 0.0:
        return 0.0
    spare = 1.0 - utilisation
    if abs(spare) < EVEN:
        return 1.0 / (2.0 + patience)
    decay = exp(min(MOST_EXPONENT, max(-MOST_EXPONENT, -spare * patience)))
    return spare * utilisation * decay / (1.0 - utilisation * utilisation * decay)


class Asked(NamedTuple):
    """Of what a device holds, what somebody wants: `steps` denoise, `aside` computes beside that,
    and `within` is asked within steps."""

    steps: tuple[Component, ...]
    aside: tuple[Component, ...]
    within: tuple[Component, ...]


class Queue(NamedTuple):
    """What is asked of a component. `load`: devices that it keeps busy."""

    rate: float
    load: float
    patience: float
    seconds: float


class Lateness:
    """Of placements of `models` under one demand."""

    def __init__(
        self, models: Iterable[Model], demand: Mapping[Component, Demand], costs: Costs
    ) -> None:
        self._interference = costs.interference
        self._queues: dict[Component, Queue] = {}
        self._beside: dict[Component, tuple[Component, ...]] = {}
        for model in models:
            asked = demand.get(model.component)
            if asked is not None and asked.wanted:
                rate = asked.rate_in(model.load_seconds)
                self._queues[model.component] = Queue(
                    rate, rate * asked.seconds, asked.patience, asked.seconds
                )
                if model.beside:
                    self._beside[model.component] = model.beside
        self._steered = self._loads_within_steps()
        self._known: dict[Holding, Asked] = {}

    def __repr__(self) -> str:
        return f"<Lateness of {len(self._queues)} components>"

    @property
    def wanted(self) -> Iterable[Component]:
        return self._queues

    def rate(self, component: Component) -> float:
        """Jobs a second that have to be served."""
        queue = self._queues.get(component)
        return 0.0 if queue is None else queue.rate

    def of(self, devices: Mapping[Holding, int]) -> float:
        """Late jobs a second; `devices`: how many hold what."""
        return sum(self.each(devices).values())

    def each(self, devices: Mapping[Holding, int]) -> dict[Component, float]:
        """The same, by component."""
        capacity = self._capacity(devices)
        return {name: self._late(name, capacity.get(name, 0.0)) for name in self._queues}

    def asked(self, holding: Holding) -> Asked:
        found = self._known.get(holding)
        if found is None:
            steps: list[Component] = []
            aside: list[Component] = []
            within: list[Component] = []
            for name in sorted(frozenset[Component]().union(*holding)):
                if name in self._beside:
                    within.append(name)
                elif name in self._queues:
                    (steps if name[0] == "denoise" else aside).append(name)
            found = self._known[holding] = Asked(tuple(steps), tuple(aside), tuple(within))
        return found

    def _loads_within_steps(self) -> dict[Component, float]:
        """What components compute more, for what is asked within their steps."""
        found: defaultdict[Component, float] = defaultdict(float)
        for name, hosts in self._beside.items():
            loads = {host: self._queues[host].load for host in hosts if host in self._queues}
            total = sum(loads.values())
            for host, load in loads.items():
                found[host] += self._queues[name].load * (load / total if total else 1.0)
        return found

    def _late(self, name: Component, capacity: float) -> float:
        queue = self._queues[name]
        if capacity <= 0.0:
            return queue.rate * UNSERVED
        if name in self._beside:
            return 0.0
        utilisation = (queue.load + self._steered.get(name, 0.0)) / capacity
        jobs = capacity * queue.patience / queue.seconds if queue.seconds > 0.0 else MOST_EXPONENT
        busy = utilisation / (1.0 + utilisation)
        return queue.rate * (lost_share(utilisation, jobs) + TIE * busy)

    def _capacity(self, devices: Mapping[Holding, int]) -> dict[Component, float]:
        """Devices that each component has to itself, all its replicas together."""
        kinds = [(self.asked(holding), count) for holding, count in devices.items() if count]
        replicas: Counter[Component] = Counter()
        for asked, count in kinds:
            for name in asked.aside:
                replicas[name] += count
        found: defaultdict[Component, float] = defaultdict(float)
        for asked, count in kinds:
            taken = {name: self._queues[name].load / replicas[name] for name in asked.aside}
            busy = sum(taken.values())
            sharers = len(taken) + bool(asked.steps)
            for name, own in taken.items():
                free = 0.0 if asked.steps else 1.0 - busy + own
                found[name] += count * max(1.0 / sharers, free)
            for name in asked.within:
                found[name] += count
            left = 1.0 - min(BUSIEST, busy)
            if taken:
                left *= 1.0 - self._interference
            for name in asked.steps:
                found[name] += count * left / len(asked.steps)
        return found
