"""What components stand in processes, and what they are to hold: in buckets of the bus, and in what
processes tell of themselves. Times are Unix seconds, durations seconds.
"""

from typing import Literal

import msgspec

State = Literal["on disk", "loading", "loaded", "draining", "failed"]
"""Of a component in a process."""


class ComponentState(msgspec.Struct, frozen=True, kw_only=True):
    """How a component stands in one process. `name`: of its model, or its ControlNet."""

    name: str
    state: State
    reason: str = ""
    """Why it is not loaded though it shall be: what went wrong the last time, or what it waits
    for."""
    bytes: int = 0
    """Of its weights."""
    seconds: float | None = None
    """Until it is loaded, as predicted, or until it is tried again; None: that is not known."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What one process, or each process of a service, shall hold of what is served."""

    held: tuple[str, ...] | None = None
    """Names, in the order in which they are loaded. None: all that is served."""
    away: tuple[str, ...] = ()
    """Names that are not held, whatever `held` says."""
    awaited: tuple[str, ...] = ()
    """Names of which jobs waited when it was said that they shall be held: they are loaded as soon
    as can be, and others without being in anybody's way."""


class WantedProcesses(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes one fleet shall have, by service."""

    processes: dict[str, int] = {}


class ServedModels(msgspec.Struct, frozen=True, kw_only=True):
    """What is served beside what fleets were configured with. Sources are directories or hub
    ids."""

    added: tuple[str, ...] = ()
    """Sources."""
    removed: tuple[str, ...] = ()
    """Sources that are not served, though they were configured."""
    gone: tuple[str, ...] = ()
    """Names of models that were removed lately: what waits of their jobs ends."""
