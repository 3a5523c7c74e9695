"""What the services have in hand, as admission sees it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from shared.policy.batch_key import ShapeKey
from shared.policy.release.jobs import Component, WaitingJob
from shared.policy.row_view import StepCost
from shared.policy.step_work import StepWork


@dataclass(frozen=True, slots=True)
class RowInHand:
    """A row that a process has, in its batch or waiting for it."""

    steps_left: int
    """The one that runs counts in full, whether it takes part or waits for its end."""
    work: StepWork
    """Of each step."""
    shape: ShapeKey
    due: float | None = None
    """When it has to be finished; None: it yields to those that have to be."""
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class ProcessLoad:
    """One component in one process. `process` is unique among those of its component."""

    process: str
    component: Component
    cost: StepCost
    at: float
    """When this was so."""
    rows: Sequence[RowInHand] = ()
    """Only where rows share steps."""
    seconds: float = 0.0
    """Until it has finished what it has in hand."""
    count: int = 0
    """How much that is: rows or nodes,"""
    max_rows: int = 1
    """and how many share a step at most."""
    max_step_seconds: float = float("inf")
    step_seconds: float = float("inf")
    """How long its last steps took, at most: not all that it has in hand takes part in each."""
    idle_since: float | None = None
    """When it had something in hand last, if it has nothing now."""
    memo: dict[object, object] = field(
        init=False, repr=False, compare=False, hash=False, default_factory=dict
    )
    """What was computed from it alone, by whoever did."""


@dataclass(frozen=True, slots=True)
class Load:
    processes: Sequence[ProcessLoad] = ()
    coming: Sequence[WaitingJob] = ()
    """Jobs that are released, and of which no process has reported a row yet."""
    elsewhere: Sequence[WaitingJob] = ()
    """Jobs that other planners have promised and not released."""


def with_idleness(
    loads: Iterable[ProcessLoad], before: Iterable[ProcessLoad]
) -> tuple[ProcessLoad, ...]:
    """`loads` of a process, each with when it became idle, if it is; `before`: by its last report,
    none if this is the first."""
    known = {one.component: one for one in before}
    return tuple(
        one if one.count else replace(one, idle_since=_idle_since(one, known.get(one.component)))
        for one in loads
    )


def _idle_since(now: ProcessLoad, before: ProcessLoad | None) -> float:
    """Of one that has nothing in hand."""
    if before is None:
        return now.at
    return before.at if before.idle_since is None else before.idle_since


def left(load: ProcessLoad, now: float) -> float:
    """Seconds until it has finished what it has in hand."""
    seconds = load.at + load.seconds - now
    return 0.0 if seconds <= 0.0 else min(seconds, load.seconds)
