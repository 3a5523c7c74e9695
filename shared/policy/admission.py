"""Whether a job may enter: a pure function of what is already waiting."""

from collections.abc import Mapping

from shared.errors import QueueFull

Queue = tuple[str, str]
"""The kind of nodes and the model."""


def admit(
    wanted: Mapping[Queue, int], waiting: Mapping[Queue, int], bound: int
) -> QueueFull | None:
    """None to admit a job, or the refusal. `wanted`: its own nodes by their queue; `waiting`: those
    that wait there; `bound`: how many may, its own included."""
    for (kind, model), count in wanted.items():
        if waiting.get((kind, model), 0) + count > bound:
            return QueueFull(f"the queue of {kind} for {model}", bound)
    return None
