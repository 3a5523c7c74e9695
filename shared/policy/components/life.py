"""The life of a component in one process, and what a process does next about all of its own. Pure.

    on disk ──load──▶ loading ──loaded──▶ loaded ──drain──▶ draining ──drained──▶ on disk
                         │
                         ├──failed──▶ failed ──load──▶ loading, or ──dropped──▶ on disk
                         └──dropped──▶ on disk

One component is loaded at a time: two would each take as long as both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from shared.messages.components import State

Event = Literal["load", "loaded", "failed", "drain", "drained", "dropped"]

TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        "on disk": {"load": "loading"},
        "loading": {"loaded": "loaded", "failed": "failed", "dropped": "on disk"},
        "loaded": {"drain": "draining"},
        "draining": {"drained": "on disk"},
        "failed": {"load": "loading", "dropped": "on disk"},
    }
)
HOLDING: Final[frozenset[State]] = frozenset({"loading", "loaded", "draining"})
"""States in which it takes memory."""
FIRST_RETRY: Final = 1.0
"""Seconds after which a load that failed is tried again the first time; each time twice as long,"""
LAST_RETRY: Final = 60.0
"""and no longer than this."""


@dataclass(frozen=True, slots=True)
class Life:
    """How one component stands."""

    state: State = "on disk"
    failures: int = 0
    """Loads that failed in a row."""
    reason: str = ""
    """Of the last one."""
    retry_at: float = 0.0
    """Before that it is not tried again."""

    def after(self, event: Event, reason: str = "", now: float = 0.0) -> "Life":
        """Raises `KeyError` if `event` cannot happen in this state."""
        state = TRANSITIONS[self.state][event]
        match event:
            case "failed":
                failures = self.failures + 1
                return Life(state, failures, reason, now + retry_seconds(failures))
            case "load":
                return replace(self, state=state)
            case _:
                return Life(state)


def retry_seconds(failures: int) -> float:
    """Pause after so many failures in a row."""
    doublings = min(failures - 1, 30)
    return min(LAST_RETRY, FIRST_RETRY * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class Next:
    """What a process does next."""

    load: str | None = None
    drain: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    """Failed ones that nobody wants any more."""
    blocked: Mapping[str, str] = field(default_factory=dict)
    """Components that are wanted and find no room, each with what it waits for."""
    look_at: float | None = None
    """When something is to be tried again."""


def decide(
    lives: Mapping[str, Life],
    wanted: Sequence[str],
    sizes: Mapping[str, int],
    budget: int,
    now: float,
) -> Next:
    """`wanted`: in the order in which they are loaded; one that finds no room keeps those behind it
    from nothing. `sizes`: bytes of their weights. `budget`: bytes that all may take together; 0:
    any number."""
    keep = set(wanted)
    drain = tuple(n for n, life in lives.items() if life.state == "loaded" and n not in keep)
    drop = tuple(n for n, life in lives.items() if life.state == "failed" and n not in keep)
    held = {n: sizes.get(n, 0) for n, life in lives.items() if life.state in HOLDING}
    busy = any(life.state == "loading" for life in lives.values())
    load: str | None = None
    blocked: dict[str, str] = {}
    look_at: float | None = None
    for name in wanted:
        life = lives.get(name, Life())
        if life.state not in ("on disk", "failed"):
            continue
        if life.state == "failed" and life.retry_at > now:
            look_at = life.retry_at if look_at is None else min(look_at, life.retry_at)
            continue
        size = sizes.get(name, 0)
        if budget and sum(held.values()) + size > budget:
            blocked[name] = no_room(size, budget, held)
        elif load is None and not busy:
            load, held[name] = name, size
    return Next(load, drain, drop, blocked, look_at)


def no_room(size: int, budget: int, held: Mapping[str, int]) -> str:
    """Why `size` bytes do not fit beside what is `held`."""
    if size > budget:
        return f"its {size} bytes are more than the {budget} of DARKROOM_MEMORY"
    others = ", ".join(f"{name} ({taken})" for name, taken in held.items())
    return f"its {size} bytes wait for room in the {budget} of DARKROOM_MEMORY beside {others}"


def load_seconds(size: int, same: float | None, others: Mapping[int, float]) -> float | None:
    """How long a load takes, as predicted: as the same one did the last time, or by the pace of
    `others` (seconds by bytes). None: nothing is known."""
    if same is not None:
        return same
    moved = sum(others)
    return size * sum(others.values()) / moved if moved and size else None


def wanted_of(
    served: Sequence[str], held: Sequence[str] | None, away: Sequence[str]
) -> tuple[str, ...]:
    """What a process shall hold of `served`, as a `Placement` says."""
    known, gone = set(served), set(away)
    chosen = served if held is None else [name for name in held if name in known]
    return tuple(dict.fromkeys(name for name in chosen if name not in gone))
