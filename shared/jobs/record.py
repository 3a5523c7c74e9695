"""A job's durable state: one document in the `records` bucket, replaced by compare-and-set."""

from typing import Literal

import msgspec

from shared.jobs.graph import Node
from shared.messages import Failure, JobSpec
from shared.messages.handle import TensorHandle

NodeStatus = Literal["waiting", "ready", "done"]
JobStatus = Literal["running", "done", "failed", "cancelled"]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A row after `step` steps: enough to continue it anywhere (see
    `services/denoiser/rows/row.py`)."""

    step: int
    tensors: dict[str, TensorHandle]
    approximations: tuple[str, ...] = ()
    """What was not computed exactly until then,"""
    warnings: tuple[str, ...] = ()
    """and what else the result has to say of it; see `Task.warnings`."""


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one node stands.

    waiting --inputs done--> ready --finished--> done
       ^                      |  ^ '--failed, attempts left--> ready (attempt + 1)
       '----an input lost-----'  '---its output lost---- done (attempt + 1)
    """

    node: Node
    status: NodeStatus
    attempt: int = 1
    lease: int = 1
    """Who may report; see `shared/jobs/leases.py` for this and the next five."""
    holder: str = ""
    """Who has written under this lease; empty while nobody has."""
    vacant: bool = False
    """The last holder gave it back."""
    alone: bool = False
    """The holder computes nothing else."""
    losses: int = 0
    """Leases since the last progress whose holders were not heard of again."""
    kills: int = 0
    """Those among them that were `alone`."""
    outputs: dict[str, TensorHandle] = {}
    checkpoint: Checkpoint | None = None
    causes: tuple[Failure, ...] = ()
    """Why earlier attempts did not finish."""
    ready_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    worker: str = ""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    spec: JobSpec
    status: JobStatus
    nodes: dict[str, NodeState]
    arenas: tuple[str, ...]
    """Every arena that has held a slot for this job, to be told when it ends."""
    created_at: float
    ended_at: float | None = None
    failure: Failure | None = None
    approximations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    text_tokens: int = 0
    """See `JobDone` for both."""

    @property
    def ended(self) -> bool:
        return self.status != "running"

    def __repr__(self) -> str:
        nodes = " ".join(f"{n}:{s.status}@{s.attempt}" for n, s in self.nodes.items())
        return f"<JobRecord {self.job_id} {self.status} [{nodes}]>"


def handles(record: JobRecord) -> tuple[TensorHandle, ...]:
    """Every handle the record points at."""
    found: list[TensorHandle] = []
    for state in record.nodes.values():
        found.extend(state.outputs.values())
        if state.checkpoint is not None:
            found.extend(state.checkpoint.tensors.values())
    return tuple(found)
