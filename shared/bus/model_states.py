"""How each model stands in the whole fleet, of what its processes say of their components."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from shared.bus.discovery import Service
from shared.messages.components import ComponentState, State
from shared.services import SERVICES

HOLDERS: Final = tuple(
    name for name, spec in SERVICES.items() if spec.nodes and spec.holds == "models"
)
"""Services that each have a component of every model."""
_BEST_FIRST: Final[Sequence[State]] = ("loaded", "loading", "failed", "draining", "on disk")


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: of what is missing most. A model is loaded when somebody of each service holds
    it."""

    name: str
    state: State
    reason: str = ""
    """Why it is not loaded, if anybody says so, and by which service."""
    seconds: float | None = None
    """Until it is loaded, as predicted; None: it is, or nobody knows."""
    service: str = ""
    """The first one of those that it waits for."""


def model_states(found: Collection[Service]) -> dict[str, ModelState]:
    """Of all models that any service knows of, by name."""
    names: dict[str, None] = {}
    for service in found:
        if service.service in HOLDERS:
            names.update(dict.fromkeys((*service.models, *(c.name for c in service.components))))
    return {name: model_state(found, name) for name in names}


def model_state(found: Collection[Service], model: str) -> ModelState:
    """How `model` stands."""
    best = {service: _best(_of(found, service, model)) for service in HOLDERS}
    return _standing(model, best) or ModelState(name=model, state="loaded")


def _standing(model: str, best: Mapping[str, ComponentState]) -> ModelState | None:
    """By its components in these services; None: all are loaded."""
    standing = {service: one for service, one in best.items() if one.state != "loaded"}
    if not standing:
        return None
    for state in ("failed", "on disk", "draining", "loading"):
        those = {service: one for service, one in standing.items() if one.state == state}
        if those:
            reasons = [f"{service}: {one.reason}" for service, one in those.items() if one.reason]
            return ModelState(
                name=model,
                state=state,
                reason="; ".join(reasons),
                seconds=_longest(one.seconds for one in standing.values()),
                service=next(iter(those)),
            )
    raise AssertionError(f"no such state: {standing}")


def waited_for(found: Collection[Service], model: str) -> ModelState | None:
    """How `model` stands, if a service that is there says that it does not hold it; else None: who
    is merely absent may be back in a moment."""
    each = {service: _of(found, service, model) for service in HOLDERS}
    there = {service: told for service, told in each.items() if told}
    return _standing(model, {service: _best(told) for service, told in there.items()})


def _of(found: Iterable[Service], service: str, model: str) -> list[ComponentState]:
    """How its component of `service` stands in each process, also in those that are too old to
    say."""
    each: list[ComponentState] = []
    for one in found:
        if one.service != service:
            continue
        told = [component for component in one.components if component.name == model]
        if not told and model in one.models:
            told = [ComponentState(name=model, state="loaded")]
        each += told
    return each


def _best(each: Sequence[ComponentState]) -> ComponentState:
    if not each:
        return ComponentState(name="", state="on disk", reason="none of its processes answers")
    return min(each, key=lambda one: (_BEST_FIRST.index(one.state), one.seconds or 0.0))


def _longest(seconds: Iterable[float | None]) -> float | None:
    """None if one is not known."""
    each = list(seconds)
    known = [one for one in each if one is not None]
    return max(known) if known and len(known) == len(each) else None
