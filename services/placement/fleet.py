"""The processes of a fleet as placement sees them, by what they answer. Pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from shared.bus.discovery import Service
from shared.messages.components import ComponentState, Placement
from shared.policy.placement.state import Demand, Model, Move, Process
from shared.policy.release.jobs import Component
from shared.services import SERVICES, NodeKind

HELD: Final = ("loaded", "loading")
LOAD_BYTES_PER_SECOND: Final = 1e9
"""As fast is a component taken to be loaded that was never loaded."""


def holders(found: Iterable[Service]) -> list[Service]:
    """Processes that can be told what to hold, and take work."""
    return [
        one
        for one in found
        if one.process
        and one.budget > 0
        and one.service in SERVICES
        and SERVICES[one.service].nodes
        and (one.refusal is None or not one.refusal.lasting)
    ]


def kind_of(service: str) -> NodeKind:
    """Of the nodes by which a service's components are counted; others come with these."""
    return SERVICES[service].nodes[0]


def models_of(found: Iterable[Service]) -> list[Model]:
    """Everything that any process could hold."""
    models: dict[Component, Model] = {}
    for one in found:
        for state in one.components:
            component = kind_of(one.service), state.name
            known = models.get(component)
            if state.bytes and (known is None or state.seconds is not None):
                models[component] = Model(component, state.bytes, _load_seconds(state))
    return list(models.values())


def process_of(one: Service, said: Placement | None) -> Process:
    """`said`: what it shall hold, where somebody said so already."""
    kind = kind_of(one.service)
    if said is not None and said.held is not None:
        held: Collection[str] = [name for name in said.held if name not in said.away]
    else:
        held = [state.name for state in one.components if state.state in HELD]
    return Process(
        one.process,
        one.process,
        frozenset({kind}),
        one.budget,
        frozenset((kind, name) for name in held),
    )


def said_after(
    move: Move, process: Process, before: Placement | None, demand: Mapping[Component, Demand]
) -> Placement:
    """What its process shall hold from now on; what an operator took away stays away."""
    held = [name for _, name in sorted(process.holds.difference(move.unloads))]
    held += [name for _, name in move.loads]
    awaited = [one[1] for one in move.loads if one in demand and demand[one].backlog > 0.0]
    return Placement(held=tuple(held), away=before.away if before else (), awaited=tuple(awaited))


def without_away(models: Iterable[Model], said: Mapping[str, Placement | None]) -> list[Model]:
    """Those that no operator has taken from a whole service. `said`: by service."""
    away = {
        (kind_of(service), name)
        for service, placement in said.items()
        if placement is not None
        for name in placement.away
    }
    return [model for model in models if model.component not in away]


def _load_seconds(state: ComponentState) -> float:
    if state.seconds is not None and state.state != "failed":
        return state.seconds
    return state.bytes / LOAD_BYTES_PER_SECOND
