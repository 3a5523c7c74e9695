"""Every transition of a job, in one pure function: `advance(record, event) -> (record, actions)`.

No clock and no I/O: events carry their time, actions are carried out by
`shared/jobs/record_store.py`. An event that comes too late (of an earlier attempt or lease, of a
finished node, of an ended job) changes nothing and answers with `outstanding(record)`: whatever a
crash between writing the record and publishing may have left unpublished. All actions are
idempotent, so repeating is harmless.
"""

from typing import Final

import msgspec

from shared.errors import AdapterUnusable, DeadlineExceeded, InvalidRequest, ModelRemoved
from shared.jobs import leases
from shared.jobs.actions import Action, CommitOutcome, DeadLetterJob, PublishNode, ReleaseArenas
from shared.jobs.events import (
    CancelRequested,
    Checkpointed,
    Claimed,
    DeadlinePassed,
    Event,
    InputsLost,
    Isolated,
    NodeEvent,
    NodeFailed,
    NodeFinished,
    Returned,
)
from shared.jobs.graph import Graph
from shared.jobs.outcome import outcome_of
from shared.jobs.record import JobRecord, NodeState
from shared.messages import Failure, JobSpec, failure_of
from shared.messages.handle import TensorHandle

MAX_FAILURES: Final = 3
"""Failures of one node's own work after which its job fails."""
MAX_ATTEMPTS: Final = 12
"""Attempts of one node, lost inputs included, after which its job fails."""

_NOTHING_TO_LEARN: Final = frozenset(
    error.code for error in (AdapterUnusable, DeadlineExceeded, InvalidRequest, ModelRemoved)
)
"""Failures after which no dead letter is kept: the request is at fault, its time, or an
operator."""

Step = tuple[JobRecord, tuple[Action, ...]]


def new_record(job_id: str, spec: JobSpec, graph: Graph, at: float) -> JobRecord:
    """A job that has just been accepted; its actions are `outstanding(record)`."""
    nodes = {
        name: NodeState(node=node, status="waiting" if node.inputs else "ready", ready_at=at)
        for name, node in graph.items()
    }
    return JobRecord(
        job_id=job_id,
        spec=spec,
        status="running",
        nodes=nodes,
        arenas=(),
        created_at=at,
        warnings=_without_effect(spec),
    )


def _without_effect(spec: JobSpec) -> tuple[str, ...]:
    """A sentence for each field that the job does not use."""
    if spec.negative_prompt and not spec.guided:
        reason = f"with a guidance of {spec.guidance:g} nothing is steered away from"
        return (f"negative_prompt: it has no effect here: {reason}",)
    return ()


def outstanding(record: JobRecord) -> tuple[Action, ...]:
    """Everything the record implies that may not have been published yet."""
    if record.ended:
        given_up = record.failure is not None and record.failure.code not in _NOTHING_TO_LEARN
        ending = (CommitOutcome(outcome_of(record)), ReleaseArenas(record.arenas))
        return (DeadLetterJob(), *ending) if given_up else ending
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
            return _checkpointed(record, event)
        case Claimed():
            return _claimed(record, event)
        case Returned():
            return _with(record, leases.give_back(record.nodes[event.node])), ()
        case Isolated():
            return _with(record, leases.isolate(record.nodes[event.node], event.holder)), ()
        case CancelRequested():
            return _end(record, "cancelled", event.at)
        case DeadlinePassed():
            error = DeadlineExceeded(record.job_id, record.spec.deadline or event.at)
            return _end(record, "failed", event.at, failure_of(error))


def _is_stale(record: JobRecord, event: Event) -> bool:
    if isinstance(event, CancelRequested | DeadlinePassed):
        return False
    state = record.nodes.get(event.node)
    return (
        state is None
        or state.status != "ready"
        or state.attempt != event.attempt
        or not _may_report(state, event)
    )


def _checkpointed(record: JobRecord, event: Checkpointed) -> Step:
    state = record.nodes[event.node]
    state = leases.progress(state, event.holder, event.checkpoint, event.alone)
    return _hold(_with(record, state), _arenas(event.checkpoint.tensors)), ()


def _claimed(record: JobRecord, event: Claimed) -> Step:
    """The new holder goes on, unless the node has killed too many holders already."""
    state = leases.claim(record.nodes[event.node], event.holder, event.alone)
    record = _with(record, state)
    poisoned = leases.verdict(record.job_id, state)
    if poisoned is not None:
        return _end(record, "failed", event.at, failure_of(poisoned))
    return record, ()


def _may_report(state: NodeState, event: NodeEvent) -> bool:
    if isinstance(event, Claimed):  # of several, the first
        return state.lease == event.lease
    return leases.may_write(state, event.lease, event.holder)


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
    if event.approximations:
        ran = tuple(sorted({*record.approximations, *event.approximations}))
        record = msgspec.structs.replace(record, approximations=ran)
    if event.warnings:
        warnings = tuple(sorted({*record.warnings, *event.warnings}))
        record = msgspec.structs.replace(record, warnings=warnings)
    if event.text_tokens:
        record = msgspec.structs.replace(record, text_tokens=event.text_tokens)
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
        record = _with(record, msgspec.structs.replace(state, causes=causes))
        return _end(record, "failed", event.at, event.failure)
    state = msgspec.structs.replace(leases.begin_attempt(state), causes=causes, ready_at=event.at)
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
            leases.begin_attempt(consumer),
            status="waiting",
            causes=(*consumer.causes, event.failure),
        ),
    )
    actions: list[Action] = []
    for producer in lost:
        again = msgspec.structs.replace(
            leases.begin_attempt(producer), status="ready", outputs={}, ready_at=event.at
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
