"""How many processes each service should have. Pure.

More are started as soon as those that run are too busy to take what fluctuates; they are stopped
only if fewer would be far from busy, so a constant load changes nothing twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from shared.policy.placement.state import Demand, Model, Process
from shared.policy.release.jobs import Component
from shared.services import SERVICE_OF

FULL: Final = 0.7
"""Share of its time that a process computes at most: above it, more processes are started."""
EMPTY: Final = 0.4
"""So busy the others may be, at most, for a process to be stopped."""
ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the processes of one service."""

    most: int
    least: int = 1
    """0: the service may have none while nobody asks for what it holds."""


def scale(
    models: Sequence[Model],
    processes: Sequence[Process],
    demand: Mapping[Component, Demand],
    limits: Mapping[str, Limits],
) -> dict[str, int]:
    """Processes by service, for the services in `limits`. A service that nobody asks anything of
    has as few as it may once it was idle for `cold_seconds`, which is for the caller's demand to
    say: `Demand.wanted` is false then."""
    return {
        service: _wanted(
            [model for model in models if SERVICE_OF[model.component[0]] == service],
            [one for one in processes if any(SERVICE_OF[kind] == service for kind in one.kinds)],
            demand,
            limit,
        )
        for service, limit in limits.items()
    }


def _wanted(
    models: Sequence[Model],
    processes: Sequence[Process],
    demand: Mapping[Component, Demand],
    limit: Limits,
) -> int:
    asked = {model: demand.get(model.component, Demand()) for model in models}
    wanted = [model for model, one in asked.items() if one.wanted]
    load = sum(asked[model].rate_in(model.load_seconds) * asked[model].seconds for model in wanted)
    fewest = _that_hold([model.bytes for model in wanted], [one.memory for one in processes])
    enough = max(fewest, _for(load, FULL))
    plenty = max(fewest, _for(load, EMPTY))
    return max(limit.least, min(limit.most, max(enough, min(plenty, len(processes)))))


def _for(load: float, share: float) -> int:
    """Processes that are busy for such a share of their time."""
    return max(0, ceil(load / share - ROUNDING))


def _that_hold(sizes: Iterable[int], memories: Sequence[int]) -> int:
    """Processes that hold all components once, if each has as much memory as the largest; at least
    one if there are any (first fit, the largest first)."""
    room = max(memories, default=None) if memories else None
    left: list[int] = []
    for size in sorted(sizes, reverse=True):
        if room is None:
            return 1
        number = next((k for k, free in enumerate(left) if free >= size), None)
        if number is None:
            left.append(room - size)
        else:
            left[number] -= size
    return len(left)
