"""Whether a job may enter: a pure function of what is already waiting."""

from collections.abc import Mapping

from shared.errors import QueueFull
from shared.jobs.graph import Graph


def admit(graph: Graph, waiting: Mapping[tuple[str, str], int], bound: int) -> QueueFull | None:
    """None to admit, or the refusal. `waiting`: nodes queued per (kind, model); `bound`: nodes
    that may be queued per (kind, model), this job's own included."""
    wanted: dict[tuple[str, str], int] = {}
    for node in graph.values():
        key = (node.kind, node.model)
        wanted[key] = wanted.get(key, 0) + 1
    for (kind, model), count in wanted.items():
        if waiting.get((kind, model), 0) + count > bound:
            return QueueFull(f"the queue of {kind} for {model}", bound)
    return None
