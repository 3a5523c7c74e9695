"""Every transition of a job, in one pure function: `advance(record, event) -> (record, actions)`.

No clock and no I/O: events carry their time, actions are carried out by `shared/jobs/ledger.py`.
An event that comes too late (of an earlier attempt, of a finished node, of an ended job) changes
nothing and answers with `outstanding(record)`: whatever a crash between writing the record and
publishing may have left unpublished. All actions are idempotent, so repeating them is harmless.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from shared.errors import DeadlineExceeded
from shared.jobs.graph import Graph
from shared.jobs.record import Checkpoint, JobRecord, NodeState
from shared.messages import (
    Failure,
    JobCancelled,
    JobDone,
    JobFailed,
    JobSpec,
    Outcome,
    StageTime,
    failure_of,
)
from shared.tensors.handle import TensorHandle

MAX_FAILURES: Final = 3
"""Failures of one node's own work after which its job fails."""
MAX_ATTEMPTS: Final = 12
"""Attempts of one node, lost inputs included, after which its job fails."""

# ---------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class NodeFinished:
    node: str
    attempt: int
    outputs: dict[str, TensorHandle]
    worker: str
    started_at: float
    at: float


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """The node's own work failed; `failure.retryable` says whether another try may help."""

    node: str
    attempt: int
    failure: Failure
    at: float


@dataclass(frozen=True, slots=True)
class InputsLost:
    """The tensor named `handle`, an input of `node`, cannot be read any more."""

    node: str
    attempt: int
    handle: str
    failure: Failure
    at: float


@dataclass(frozen=True, slots=True)
class Checkpointed:
    node: str
    attempt: int
    checkpoint: Checkpoint
    at: float


@dataclass(frozen=True, slots=True)
class CancelRequested:
    at: float


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    at: float


Event = NodeFinished | NodeFailed | InputsLost | Checkpointed | CancelRequested | DeadlinePassed

# --------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class PublishNode:
    """Put this attempt of this node into the queue of its model."""

    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ReleaseArenas:
    """Tell the owners of these arenas that the job needs no slot any more."""

    arenas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuryJob:
    """Keep the record, with the causes of its failures, in the dead-letter stream."""


Action = PublishNode | CommitOutcome | ReleaseArenas | BuryJob
Step = tuple[JobRecord, tuple[Action, ...]]

# ------------------------------------------------------------------------------------ transitions


def new_record(job_id: str, spec: JobSpec, graph: Graph, at: float) -> JobRecord:
    """A job that has just been accepted; its actions are `outstanding(record)`."""
    nodes = {
        name: NodeState(node=node, status="waiting" if node.inputs else "ready", ready_at=at)
        for name, node in graph.items()
    }
    return JobRecord(
        job_id=job_id, spec=spec, status="running", nodes=nodes, arenas=(), created_at=at
    )


def outstanding(record: JobRecord) -> tuple[Action, ...]:
    """Everything the record implies that may not have been published yet."""
    if record.ended:
        given_up = record.failure is not None and record.failure.code != DeadlineExceeded.code
        ending = (CommitOutcome(outcome_of(record)), ReleaseArenas(record.arenas))
        return (BuryJob(), *ending) if given_up else ending
    return tuple(
        PublishNode(name, state.attempt)
        for name, state in record.nodes.items()
        if state.status == "ready"
    )


def advance(record: JobRecord, event: Event) -> Step:
    """What `event` makes of `record`, and what has to be done about it."""
    if record.ended or _is_stale(record, event):
        return record, outstanding(record)
    match event:
        case NodeFinished():
            return _finished(record, event)
        case NodeFailed():
            return _failed(record, event)
        case InputsLost():
            return _inputs_lost(record, event)
        case Checkpointed():
            state = msgspec.structs.replace(record.nodes[event.node], checkpoint=event.checkpoint)
            held = _arenas(event.checkpoint.tensors)
            return _hold(_with(record, state), held), ()
        case CancelRequested():
            return _end(record, "cancelled", event.at)
        case DeadlinePassed():
            error = DeadlineExceeded(record.job_id, record.spec.deadline or event.at)
            return _end(record, "failed", event.at, failure_of(error))


def _is_stale(record: JobRecord, event: Event) -> bool:
    if isinstance(event, CancelRequested | DeadlinePassed):
        return False
    state = record.nodes.get(event.node)
    return state is None or state.status != "ready" or state.attempt != event.attempt


def _finished(record: JobRecord, event: NodeFinished) -> Step:
    state = msgspec.structs.replace(
        record.nodes[event.node],
        status="done",
        outputs=event.outputs,
        checkpoint=None,
        started_at=event.started_at,
        finished_at=event.at,
        worker=event.worker,
    )
    record = _hold(_with(record, state), _arenas(event.outputs))
    if all(s.status == "done" for s in record.nodes.values()):
        return _end(record, "done", event.at)
    return _make_ready(record, event.at)


def _make_ready(record: JobRecord, at: float) -> Step:
    """Publish every waiting node whose inputs are all done."""
    actions: list[Action] = []
    for state in record.nodes.values():
        inputs_done = all(record.nodes[i].status == "done" for i in state.node.inputs)
        if state.status == "waiting" and inputs_done:
            state = msgspec.structs.replace(state, status="ready", ready_at=at)
            record = _with(record, state)
            actions.append(PublishNode(state.node.name, state.attempt))
    return record, tuple(actions)


def _failed(record: JobRecord, event: NodeFailed) -> Step:
    state = record.nodes[event.node]
    causes = (*state.causes, event.failure)
    own_failures = sum(cause.code != "handle_lost" for cause in causes)
    if not event.failure.retryable or own_failures >= MAX_FAILURES or _exhausted(state):
        return _end(record, "failed", event.at, event.failure)
    state = msgspec.structs.replace(
        state, attempt=state.attempt + 1, causes=causes, ready_at=event.at
    )
    return _with(record, state), (PublishNode(event.node, state.attempt),)


def _inputs_lost(record: JobRecord, event: InputsLost) -> Step:
    """The consumer waits again, and whoever's current output was lost runs again. None did if
    another consumer has already sent the producer back to work."""
    consumer = record.nodes[event.node]
    lost = [
        record.nodes[name]
        for name in consumer.node.inputs
        if any(held.name == event.handle for held in record.nodes[name].outputs.values())
    ]
    if _exhausted(consumer) or any(_exhausted(producer) for producer in lost):
        return _end(record, "failed", event.at, event.failure)
    record = _with(
        record,
        msgspec.structs.replace(
            consumer,
            status="waiting",
            attempt=consumer.attempt + 1,
            causes=(*consumer.causes, event.failure),
        ),
    )
    actions: list[Action] = []
    for producer in lost:
        again = msgspec.structs.replace(
            producer, status="ready", attempt=producer.attempt + 1, outputs={}, ready_at=event.at
        )
        record = _with(record, again)
        actions.append(PublishNode(producer.node.name, again.attempt))
    record, ready = _make_ready(record, event.at)
    return record, (*actions, *ready)


def _exhausted(state: NodeState) -> bool:
    return state.attempt >= MAX_ATTEMPTS


def _end(record: JobRecord, status: str, at: float, failure: Failure | None = None) -> Step:
    ended = msgspec.structs.replace(record, status=status, ended_at=at, failure=failure)
    return ended, outstanding(ended)


def _with(record: JobRecord, state: NodeState) -> JobRecord:
    return msgspec.structs.replace(record, nodes={**record.nodes, state.node.name: state})


def _hold(record: JobRecord, arenas: frozenset[str]) -> JobRecord:
    held = tuple(sorted({*record.arenas, *arenas}))
    return msgspec.structs.replace(record, arenas=held)


def _arenas(tensors: dict[str, TensorHandle]) -> frozenset[str]:
    return frozenset(h.slot.arena for h in tensors.values() if h.slot is not None)


# ---------------------------------------------------------------------------------------- outcome


def outcome_of(record: JobRecord) -> Outcome:
    """The one message that tells users how an ended job ended."""
    stages = [_stage(state) for state in record.nodes.values() if state.status == "done"]
    match record.status:
        case "done":
            spec = record.spec
            return JobDone(
                job_id=record.job_id,
                model=spec.model,
                images=spec.n,
                seed=spec.seed,
                steps=spec.steps,
                width=spec.width,
                height=spec.height,
                output_format=spec.output_format,
                seconds=(record.ended_at or 0.0) - record.created_at,
                stages=stages,
                approximations=list(record.approximations),
            )
        case "failed":
            assert record.failure is not None
            return JobFailed(job_id=record.job_id, failure=record.failure, stages=stages)
        case "cancelled":
            return JobCancelled(job_id=record.job_id)
        case "running":
            raise ValueError(f"{record!r} has not ended")


def _stage(state: NodeState) -> StageTime:
    return StageTime(
        node=state.node.name,
        kind=state.node.kind,
        waiting=state.started_at - state.ready_at,
        running=state.finished_at - state.started_at,
        worker=state.worker,
        attempts=state.attempt,
    )
