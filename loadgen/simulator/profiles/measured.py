"""A profile of a fleet that ran, from what its services and its clients saw at several loads. Pure.

Costs are what each thing takes of a core while nobody else wants it: of the time that passed and
the processor time that was used, the smaller one. In the simulation the processes share the cores,
and so do the gateway, the planner and the client, with what they take for each job beside its
nodes. Where nobody said what processor time was used, costs are those of the fleet as it is, with
all that competes for its cores, and nothing is slowed down once more in the simulation.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Final

import msgspec
import numpy as np
from scipy.optimize import nnls

from loadgen.simulator.profiles.cost import Linear
from loadgen.simulator.profiles.profile import Component, Host, Overheads, Profile, Workflow
from shared.errors import InvalidRequest
from shared.policy.batch_bounds import DECODING, ENCODING

QUEUED: Final = ("denoise", "decode")
"""Kinds of nodes that other nodes come before."""
FEW: Final = 2
"""Users at most, where what a node takes is to be its own work: with more, it waits for others."""
WIDE: Final = 1.5
"""Cores from which on a step is believed to be computed on several: a bit more is what the process
does beside it."""
SERVICE: Final = {"encode": "prompt_encoder", "decode": "vae"}


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
    processor: float = inf
    """Seconds of a core that its process used meanwhile; infinite: nobody knows."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen while `users` users asked for a picture each, again and again. `forwards`: of
    a picture in a step. `processor`: seconds of a core that each service used, and "others": all
    that are no service; empty: nobody knows."""

    users: int
    forwards: int
    jobs: tuple[JobTimes, ...]
    denoisers: tuple[Steps, ...]
    processor: dict[str, float] = {}

    @property
    def split(self) -> bool:
        """Whether guided steps were shared by two denoisers."""
        return self.users == 1 and self.forwards == 2 and len(self.denoisers) > 1

    @property
    def step_seconds(self) -> float:
        """Of a step, in the mean."""
        steps = sum(one.steps for one in self.denoisers)
        return sum(one.seconds for one in self.denoisers) / max(1, steps)


class Cores(msgspec.Struct, frozen=True, kw_only=True):
    """Of the machine. `refusal`: seconds of a core that a request takes that is refused."""

    cores: int
    refusal: float = 0.0


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
    machine: Cores | None = None,
) -> Profile:
    """`levels`: of each of `models`; the first has one user. `machine`: if services said what
    processor time they used. Raises `InvalidRequest` for a model of which too little was seen."""
    components: dict[str, Component] = {}
    workflows: dict[str, Workflow] = {}
    around: list[Overheads] = []
    every = [level for seen in levels.values() for level in seen]
    width = _width(every)
    for model, drawn in models.items():
        seen = levels.get(model, ())
        if not any(level.jobs for level in seen if level.users == 1):
            raise InvalidRequest("model", model, "one that drew pictures for a single user")
        parts = {kind: f"{model}/{kind}" for kind in ("encode", "denoise", "decode")}
        costs = Costs(
            encode=_serial(seen, "encode", drawn, width),
            denoise=fitted(_points(seen, width)),
            decode=_serial(seen, "decode", drawn, width),
        )
        components |= {
            parts["encode"]: Component(
                kind="encode", cost=costs.encode, max_batch=ENCODING.max_batch
            ),
            parts["denoise"]: Component(kind="denoise", cost=costs.denoise, max_batch=max_rows),
            parts["decode"]: Component(
                kind="decode", cost=costs.decode, max_batch=DECODING.max_batch
            ),
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
        around.append(_overheads(seen, drawn, costs, 0.0 if machine is None else machine.refusal))
    denoisers = max(len(level.denoisers) for level in every)
    # Without processor times a core for each process: what they take of each other is in the costs.
    cores = float(len(components) * denoisers) if machine is None else machine.cores / width
    return Profile(
        name=name,
        source=source,
        components=components,
        workflows=workflows,
        overheads=around[0],
        host=Host(cores=cores, denoisers=denoisers),
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


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Of the components of a model."""

    encode: Linear
    denoise: Linear
    decode: Linear


def _width(levels: Sequence[Level]) -> float:
    """Cores that a denoiser computes a step on."""
    found = [
        one.processor / one.seconds
        for level in levels
        for one in level.denoisers
        if level.users == 1 and not level.split and one.steps > 0 and one.processor < inf
    ]
    return max(1.0, median(found)) if found and median(found) > WIDE else 1.0


def _points(levels: Sequence[Level], width: float) -> list[tuple[float, float, int]]:
    return [
        (
            level.forwards * one.row_steps / one.steps,
            min(one.seconds, one.processor / width) / one.steps,
            one.steps,
        )
        for level in levels
        for one in level.denoisers
        if one.steps > 0 and not level.split
    ]


def _serial(levels: Sequence[Level], kind: str, drawn: Drawn, width: float) -> Linear:
    """Of a node that computes alone, all of it for each unit: prompts of an encoding (of which a
    guided job has two), one picture of a decoding."""
    quiet = _usual(levels, drawn)
    units = 2 if kind == "encode" and drawn.guided else 1
    seconds = _middle(quiet, lambda job: node.running if (node := job.of(kind)) else None)
    used = [
        level.processor[SERVICE[kind]] / len(level.jobs) / width
        for level in quiet
        if level.jobs and SERVICE[kind] in level.processor
    ]
    return Linear(fixed=0.0, per_unit=min([seconds, *used]) / units)


def _usual(levels: Sequence[Level], drawn: Drawn) -> list[Level]:
    """With few users, whose requests say nothing of guidance."""
    forwards = 2 if drawn.guided else 1
    return [level for level in levels if level.users <= FEW and level.forwards == forwards]


def _overheads(levels: Sequence[Level], drawn: Drawn, costs: Costs, refusal: float) -> Overheads:
    """What a job of a single user takes that is no computing, and what all jobs take of cores
    beside their nodes."""
    usual = _usual(levels, drawn)
    alone = [level for level in usual if level.users == 1]
    way = _middle(
        alone, lambda job: sum(n.waiting for n in job.nodes if n.kind in QUEUED) / len(QUEUED)
    )
    prompts = 2.0 if drawn.guided else 1.0
    nodes = costs.encode.seconds(prompts) + costs.decode.seconds(1.0) + len(QUEUED) * way
    around = [
        max(0.0, job.seconds - nodes - job.steps * level.step_seconds)
        for level in alone
        for job in level.jobs
    ]
    shared = [level.step_seconds - costs.denoise.seconds(1.0) for level in levels if level.split]
    beside = [_beside(level, costs) for level in levels if level.jobs and level.processor]
    return Overheads(
        job=median(around) if around else 0.0,
        node=way,
        ask=0.0,
        cpu=refusal,
        drawn_cpu=max(0.0, median(beside) - refusal) if beside else 0.0,
        split=max(0.0, median(shared)) if shared else None,
    )


def _beside(level: Level, costs: Costs) -> float:
    """Seconds of a core for each job that were used beside nodes."""
    computed = len(level.jobs) * (
        costs.encode.seconds(float(level.forwards)) + costs.decode.seconds(1.0)
    )
    for one in level.denoisers:
        if one.steps > 0 and not level.split:
            rows = level.forwards * one.row_steps / one.steps
            computed += one.steps * costs.denoise.seconds(rows)
        elif level.split:
            computed += 2 * one.steps * costs.denoise.seconds(1.0)
    return max(0.0, sum(level.processor.values()) - computed) / len(level.jobs)


def _middle(levels: Sequence[Level], figure: Callable[[JobTimes], float | None]) -> float:
    found = [value for level in levels for job in level.jobs if (value := figure(job)) is not None]
    return median(found) if found else 0.0
