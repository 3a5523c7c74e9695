"""What can happen to a job. Events carry their time, and the lease under which they happened: what
a process reports after its node was given to another one is stale, and changes nothing.
"""

from dataclasses import dataclass

from shared.jobs.record import Checkpoint
from shared.messages import Failure
from shared.messages.handle import TensorHandle


@dataclass(frozen=True, slots=True)
class NodeFinished:
    node: str
    attempt: int
    outputs: dict[str, TensorHandle]
    worker: str
    started_at: float
    at: float
    lease: int = 1
    holder: str = ""
    approximations: tuple[str, ...] = ()
    """What was not computed exactly."""
    warnings: tuple[str, ...] = ()
    """What of the request had no effect."""
    text_tokens: int = 0
    """Of the prompts, if they were encoded."""


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """The node's own work failed; `failure.retryable` says whether another try may help."""

    node: str
    attempt: int
    failure: Failure
    at: float
    lease: int = 1
    holder: str = ""


@dataclass(frozen=True, slots=True)
class InputsLost:
    """The tensor named `handle`, an input of `node`, cannot be read any more."""

    node: str
    attempt: int
    handle: str
    failure: Failure
    at: float
    lease: int = 1
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Checkpointed:
    node: str
    attempt: int
    checkpoint: Checkpoint
    at: float
    lease: int = 1
    holder: str = ""
    alone: bool = False
    """Whether the node is still the only one that its process computes."""


@dataclass(frozen=True, slots=True)
class _OfLease:
    """About who holds the node, who last saw it under `lease`."""

    node: str
    attempt: int
    lease: int
    at: float
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Claimed(_OfLease):
    """The node came again to somebody."""

    alone: bool = False
    """Whether it will be the only one that its process computes."""


@dataclass(frozen=True, slots=True)
class Returned(_OfLease):
    """The holder gives the node back of its own accord: it leaves, or has no room."""


@dataclass(frozen=True, slots=True)
class Isolated(_OfLease):
    """From now on the node is the only one that its process computes."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    at: float


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    at: float


NodeEvent = NodeFinished | NodeFailed | InputsLost | Checkpointed | Claimed | Returned | Isolated
Event = NodeEvent | CancelRequested | DeadlinePassed
