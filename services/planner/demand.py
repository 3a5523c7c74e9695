"""What a job asks of the services, as admission sees it: read off the nodes of its graph."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from shared.jobs.graph import Graph
from shared.messages import JobSpec
from shared.messages.nodes import Denoise
from shared.policy.release.jobs import ONE, Component, Stage, WaitingJob, rows_of_size
from shared.policy.step_work import StepWork, total

NOBODY: Final = ""
"""Whose jobs those are that come without a user."""


def waiting_job(
    job_id: str, spec: JobSpec, graph: Graph, scales: Mapping[str, int], arrival: float, size: int
) -> WaitingJob:
    """`scales`: see `denoising`; `size`: bytes that it holds while it waits."""
    nodes: Counter[Component] = Counter((node.kind, node.model) for node in graph.values())
    return WaitingJob(
        job_id,
        arrival,
        spec.user or NOBODY,
        spec.service_class,
        tuple(
            Stage(component, ONE, rows=count)
            for component, count in nodes.items()
            if component[0] not in ("denoise", "decode")
        ),
        denoising(graph, scales),
        tuple(Stage(c, ONE, rows=count) for c, count in nodes.items() if c[0] == "decode"),
        spec.deadline,
        size,
    )


def denoising(graph: Graph, scales: Mapping[str, int]) -> Stage:
    """All rows of the job; `scales`: pixels to a position of the latents, by model.

    Rows that come one after another count as one with the steps of all, each of what they take on
    average, of the model and size of the heaviest. What a mask saves is not known yet."""
    parts = {
        node.name: _part(node.model, node.parameters, scales[node.model])
        for node in graph.values()
        if isinstance(node.parameters, Denoise)
    }
    chains = [[parts[name] for name in chain] for chain in _chains(graph, frozenset(parts))]
    longest = max(chains, key=lambda chain: _whole(chain).pairs)
    heaviest = max(longest, key=lambda part: _whole([part]).pairs)
    if len(longest) == 1:
        work, steps = heaviest.work, heaviest.steps
    else:
        steps = sum(part.steps for part in longest)
        work = _whole(longest).scaled(1 / steps)
    return Stage(heaviest.component, work, steps, len(chains), heaviest.shape)


def _part(model: str, asked: Denoise, scale: int) -> Stage:
    height, width = asked.height // scale, asked.width // scale
    share = asked.end - asked.start
    if asked.beginning is not None and not asked.start:
        share = min(share, asked.beginning.strength)
    return Stage(
        ("denoise", model),
        StepWork.full(2 if asked.guided else 1, height * width),
        max(1, round(share * asked.steps)),
        shape=rows_of_size(height, width),
    )


def _whole(parts: list[Stage]) -> StepWork:
    return total(part.work.scaled(part.steps) for part in parts)


def _chains(graph: Graph, wanted: frozenset[str]) -> list[list[str]]:
    """Of each of the nodes `wanted` that none of them follows: itself, and those before it."""
    before = {name: _before(graph, name) & wanted for name in wanted}
    followed = frozenset[str]().union(*before.values())
    return [[name, *sorted(before[name])] for name in sorted(wanted - followed)]


def _before(graph: Graph, name: str) -> frozenset[str]:
    """All nodes that a node needs, directly or not."""
    waiting, found = list(graph[name].inputs), set[str]()
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(graph[one].inputs)
    return frozenset(found)
