"""What waits to be released, and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from shared.messages import ServiceClass
from shared.policy.batch_key import ShapeKey
from shared.policy.step_work import StepWork
from shared.services import NodeKind

Component = tuple[NodeKind, str]
"""A kind of node, and the model: whoever holds it has one queue."""

ANY_SHAPE: Final = ShapeKey(0, 0, 0, ())
"""Of nodes that are computed one by one."""


ONE: Final = StepWork(1, 1)
"""Of such a node: processes tell what one of them takes."""


def rows_of_size(height: int, width: int) -> ShapeKey:
    """Rows of one size share steps, as far as planners know."""
    return ShapeKey(0, height, width, ())


@dataclass(frozen=True, slots=True)
class Stage:
    """`rows` alike nodes of a job that may run side by side, each of `steps` steps of `work`."""

    component: Component
    work: StepWork
    steps: int = 1
    rows: int = 1
    shape: ShapeKey = ANY_SHAPE
    """Rows of one shape share their steps."""


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """A job in the backlog. Times are of one clock, in seconds."""

    job_id: str
    arrival: float
    user: str
    service_class: ServiceClass
    before: tuple[Stage, ...]
    """What has to be there before its rows begin; side by side."""
    denoise: Stage
    after: tuple[Stage, ...] = ()
    """What follows each row."""
    deadline: float | None = None
    size: int = 0
    """Bytes that it holds while it waits."""
    admitted: bool = False
    """It was let in earlier: it is not refused for want of room any more."""
    promised: float | None = None
    """By when it was promised to be finished: its deadline; of one that has none, and was passed
    over for long, another time."""


Reason = Literal["deadline_unreachable", "deadline_exceeded", "backlog_full"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """`seconds`: from now until it would be finished. `retry_after`: seconds until a job like it
    may be in time, by what is promised now. `bound`: which one, and how much, if one is reached."""

    job_id: str
    reason: Reason
    seconds: float = 0.0
    retry_after: float = 1.0
    bound: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of a job that waits: it is the `position`-th to be released, from 1, and is finished in
    `seconds`; None: nobody knows how long what it needs takes."""

    position: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Shares:
    """What users have had: what fair queueing has to remember between two decisions."""

    virtual: Mapping[str, float] = field(default_factory=dict)
    """User -> the predicted seconds that were released for it, over its weight, as finish tags of
    start-time fair queueing (Goyal, Vin & Cheng 1996)."""
    now: float = 0.0
    """Start tag of what was released last."""
    used: Mapping[str, float] = field(default_factory=dict)
    """User -> the same seconds, of which half are forgotten every `HALF_LIFE` seconds."""
    at: float = 0.0
    """When `used` was right."""
    reserved: Mapping[Component, float] = field(default_factory=dict)
    """When the next job that was passed over for long may be promised a time."""


@dataclass(frozen=True, slots=True)
class Decision:
    """By ids of jobs. What is named nowhere waits on."""

    released: tuple[str, ...]
    """Their first nodes are to be published now, in this order."""
    refused: tuple[Refusal, ...]
    predicted: Mapping[str, Prediction]
    """Of those that wait on."""
    admitted: Mapping[str, float | None]
    """Those that were let in now, with what `WaitingJob.promised` is from now on."""
    shares: Shares
