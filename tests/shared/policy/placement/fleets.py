"""Fleets small enough to look at every placement of them, and what has to hold of each decision."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from random import Random

from shared.policy.placement.devices import Devices
from shared.policy.placement.lateness import Lateness
from shared.policy.placement.place import USUAL, place
from shared.policy.placement.state import Costs, Demand, Model, Move, Process, moved
from shared.policy.release.jobs import Component
from shared.services import NodeKind

Place = Callable[..., tuple[Move, ...]]

A: Component = ("denoise", "a")
B: Component = ("denoise", "b")
C: Component = ("denoise", "c")
TEXT: Component = ("encode", "text")
PIXELS: Component = ("decode", "pixels")
ALL_KINDS: frozenset[NodeKind] = frozenset({"encode", "hint", "denoise", "decode"})
GB = 1 << 30


def model(component: Component, size: int = 10 * GB, seconds: float = 2.0) -> Model:
    return Model(component, size, seconds)


def process(
    name: str, holds: Sequence[Component] = (), memory: int = 10 * GB, device: str | None = None
) -> Process:
    return Process(name, device or name, ALL_KINDS, memory, frozenset(holds))


def asked(rate: float, seconds: float = 1.0, **more: float) -> Demand:
    return Demand(rate=rate, seconds=seconds, **more)


def settled(
    models: Sequence[Model],
    processes: Sequence[Process],
    demand: Mapping[Component, Demand],
    costs: Costs = USUAL,
    decide: Place = place,
    most: int = 50,
) -> tuple[list[Process], list[Move]]:
    """Processes once nothing moves any more, and all moves until then."""
    now, moves = list(processes), list[Move]()
    for _ in range(most):
        found = decide(models, now, demand, costs)
        if not found:
            return now, moves
        moves += found
        now = moved(now, found)
    raise AssertionError(f"still moving after {most} decisions: {moves[-6:]}")


def late(
    models: Sequence[Model], processes: Sequence[Process], demand: Mapping[Component, Demand]
) -> float:
    """Jobs a second, by prediction."""
    return Lateness(models, demand, USUAL).of(Devices(processes).counts)


def replicas(processes: Sequence[Process], component: Component) -> int:
    return sum(component in one.holds for one in processes)


def placements(models: Sequence[Model], processes: Sequence[Process]) -> Iterator[list[Process]]:
    """Every placement that there is memory for."""
    each = [list(_fitting(models, one)) for one in processes]
    for chosen in product(*each):
        yield [
            Process(one.name, one.device, one.kinds, one.memory, holds)
            for one, holds in zip(processes, chosen, strict=True)
        ]


def _fitting(models: Sequence[Model], one: Process) -> Iterator[frozenset[Component]]:
    for count in range(len(models) + 1):
        for some in combinations(models, count):
            if sum(model.bytes for model in some) <= one.memory:
                yield frozenset(model.component for model in some)


def scene(number: int) -> tuple[list[Model], list[Process], dict[Component, Demand]]:
    """Three components that fit, or do not, on three processes that hold something already."""
    lot = Random(number)
    models = [model(name, lot.choice((3, 5, 8)) * GB, lot.uniform(0.2, 4.0)) for name in (A, B, C)]
    processes = [process(f"p{k}", memory=lot.choice((8, 10, 16)) * GB) for k in range(3)]
    start = lot.choice(list(placements(models, processes)))
    demand = {
        one.component: asked(lot.choice((0.0, lot.uniform(0.01, 3.0))), lot.choice((0.2, 1.0, 5.0)))
        for one in models
    }
    return models, start, demand


def faults(decide: Place, number: int) -> list[str]:
    """What is wrong with the decisions of `decide` in a scene."""
    models, start, demand = scene(number)
    try:
        end, moves = settled(models, start, demand, decide=decide)
    except AssertionError as error:
        return [str(error)]
    found = []
    sizes = {one.component: one.bytes for one in models}
    found += [
        f"{one.name} holds more than it can"
        for one in end
        if sum(sizes[name] for name in one.holds) > one.memory
    ]
    loaded = [(move.process, name) for move in moves for name in move.loads]
    gone = [(move.process, name) for move in moves for name in move.unloads]
    found += [f"{name} came to {at} and left" for at, name in {*loaded} & {*gone}]
    before, after = late(models, start, demand), late(models, end, demand)
    if after > before + 1e-9:
        found.append(f"{before:.4f} jobs a second were late, now {after:.4f}")
    found += [
        f"nobody holds {name} any more, and {asked.rate:.2f} a second want it"
        for name, asked in demand.items()
        if asked.wanted and replicas(start, name) and not replicas(end, name)
        if all(replicas(end, other) * demand[other].rate <= asked.rate for other in demand)
    ]
    return found
