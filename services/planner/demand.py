"""What a job asks of the services, as admission sees it."""

from collections import Counter
from typing import Final

from shared.jobs.graph import Graph
from shared.messages import JobSpec
from shared.models.cards import ModelCard
from shared.policy.release.jobs import ONE, Component, Stage, WaitingJob, rows_of_size
from shared.policy.step_work import StepWork

NOBODY: Final = ""
"""Whose jobs those are that come without a user."""


def waiting_job(
    job_id: str, spec: JobSpec, graph: Graph, card: ModelCard, arrival: float, size: int
) -> WaitingJob:
    """`size`: bytes that it holds while it waits."""
    nodes: Counter[Component] = Counter((node.kind, node.model) for node in graph.values())
    decode = ("decode", spec.model)
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
        denoising(spec, card),
        tuple(Stage(c, ONE, rows=count) for c, count in nodes.items() if c == decode),
        spec.deadline,
        size,
    )


def denoising(spec: JobSpec, card: ModelCard) -> Stage:
    """All rows of the job. What a mask saves is not known yet."""
    height, width = spec.height // card.scale, spec.width // card.scale
    strength = 1.0 if spec.edit is None else spec.edit.strength
    return Stage(
        ("denoise", spec.model),
        StepWork.full(2 if spec.guided else 1, height * width),
        max(1, round(strength * spec.steps)),
        spec.n,
        rows_of_size(height, width),
    )
