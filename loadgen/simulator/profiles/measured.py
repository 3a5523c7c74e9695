"""A profile of a fleet that ran, from what its services and its clients saw at several loads. Pure.

Costs are those of the fleet as it is, with all that competes for its cores: seconds of a step are
fitted to steps of every size that were taken, and nothing is slowed down once more in the
simulation. So the loads that are measured should be about those that are simulated.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

import msgspec
import numpy as np
from scipy.optimize import nnls

from loadgen.simulator.profiles.cost import Linear
from loadgen.simulator.profiles.profile import Component, Host, Overheads, Profile, Workflow
from shared.errors import InvalidRequest

QUEUED: Final = ("denoise", "decode")
"""Kinds of nodes that other nodes come before."""
FEW: Final = 2
"""Users at most, where what a node takes is to be its own work: with more, it waits for others."""


class NodeTime(msgspec.Struct, frozen=True):
    """Seconds of a node in its queue, and at work."""

    kind: str
    waiting: float
    running: float


class JobTimes(msgspec.Struct, frozen=True, kw_only=True):
    """A job of one picture. `seconds`: until its client had it."""

    steps: int
    seconds: float
    nodes: tuple[NodeTime, ...]

    def of(self, kind: str) -> NodeTime | None:
        return next((node for node in self.nodes if node.kind == kind), None)


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """That one denoiser took meanwhile."""

    steps: int
    row_steps: int
    seconds: float


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen while `users` users asked for a picture each, again and again. `forwards`: of
    a picture in a step."""

    users: int
    forwards: int
    jobs: tuple[JobTimes, ...]
    denoisers: tuple[Steps, ...]


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of a model get that do not say otherwise."""

    steps: int
    guided: bool
    width: int
    height: int


def profile_of(
    name: str,
    source: str,
    models: Mapping[str, Drawn],
    levels: Mapping[str, Sequence[Level]],
    max_rows: int,
) -> Profile:
    """`levels`: of each of `models`; the first has one user. Raises `InvalidRequest` for a model of
    which too little was seen."""
    components: dict[str, Component] = {}
    workflows: dict[str, Workflow] = {}
    for model, drawn in models.items():
        seen = levels.get(model, ())
        if not any(level.jobs for level in seen if level.users == 1):
            raise InvalidRequest("model", model, "one that drew pictures for a single user")
        parts = {kind: f"{model}/{kind}" for kind in ("encode", "denoise", "decode")}
        components |= {
            parts["encode"]: Component(kind="encode", cost=_serial(seen, "encode", drawn)),
            parts["denoise"]: Component(
                kind="denoise", cost=fitted(_points(seen)), max_batch=max_rows
            ),
            parts["decode"]: Component(kind="decode", cost=_serial(seen, "decode", None)),
        }
        workflows[model] = Workflow(
            encode=parts["encode"],
            denoise=parts["denoise"],
            decode=parts["decode"],
            steps=drawn.steps,
            guided=drawn.guided,
            width=drawn.width,
            height=drawn.height,
        )
    every = [level for seen in levels.values() for level in seen]
    denoisers = max(len(level.denoisers) for level in every)
    return Profile(
        name=name,
        source=source,
        components=components,
        workflows=workflows,
        overheads=_overheads(every),
        # A core for each process: what they take of each other is in the costs.
        host=Host(cores=float(len(components) * denoisers), denoisers=denoisers),
    )


def fitted(points: Sequence[tuple[float, float, int]]) -> Linear:
    """The line through (units, seconds of a step, how many such steps) whose relative errors are
    smallest, with neither a negative part nor a negative slope."""
    usable = [(units, seconds, n) for units, seconds, n in points if n > 0 and seconds > 0.0]
    if not usable:
        raise InvalidRequest("steps", 0, "at least one step that was taken")
    weights = np.sqrt([n for _, _, n in usable])
    seconds = np.array([s for _, s, _ in usable])
    terms = np.array([(1.0, units) for units, _, _ in usable])
    found, _ = nnls(terms * (weights / seconds)[:, None], weights)
    return Linear(fixed=float(found[0]), per_unit=float(found[1]))


def _points(levels: Sequence[Level]) -> list[tuple[float, float, int]]:
    return [
        (level.forwards * one.row_steps / one.steps, one.seconds / one.steps, one.steps)
        for level in levels
        for one in level.denoisers
        if one.steps > 0
    ]


def _serial(levels: Sequence[Level], kind: str, drawn: Drawn | None) -> Linear:
    """Of a node that computes alone, all of it for each unit: prompts of an encoding (`drawn` says
    how many by default), one picture of a decoding."""
    quiet = [level for level in levels if level.users <= FEW]
    seconds = _middle(quiet, lambda job: node.running if (node := job.of(kind)) else None)
    units = 2 if drawn is not None and drawn.guided else 1
    return Linear(fixed=0.0, per_unit=seconds / units)


def _overheads(levels: Sequence[Level]) -> Overheads:
    """Of a fleet with one user. What a denoiser does for a row beside its steps counts as way to
    it."""
    alone = [level for level in levels if level.users == 1]
    step = {
        id(job): sum(one.seconds for one in level.denoisers)
        / max(1, sum(one.steps for one in level.denoisers))
        for level in alone
        for job in level.jobs
    }

    def beside(job: JobTimes) -> float | None:
        node = job.of("denoise")
        return None if node is None else max(0.0, node.running - job.steps * step[id(job)])

    def way(job: JobTimes) -> float:
        return sum(node.waiting for node in job.nodes if node.kind in QUEUED) / len(QUEUED)

    def around(job: JobTimes) -> float:
        own = sum(node.running for node in job.nodes)
        own += sum(node.waiting for node in job.nodes if node.kind in QUEUED)
        return max(0.0, job.seconds - own)

    extra = _middle(alone, beside)
    return Overheads(
        job=_middle(alone, around), node=_middle(alone, way) + extra / len(QUEUED), ask=0.0
    )


def _middle(levels: Sequence[Level], figure: Callable[[JobTimes], float | None]) -> float:
    found = [value for level in levels for job in level.jobs if (value := figure(job)) is not None]
    return median(found) if found else 0.0
