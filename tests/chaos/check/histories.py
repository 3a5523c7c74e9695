"""Made-up histories of one job, for the auditor's own tests: what `advance` makes of random events
is a good one, and every rule has a way to break it."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from shared import subjects
from shared.jobs.advance import advance, new_record
from shared.jobs.events import Checkpointed, Claimed, Event, NodeFailed, NodeFinished, Returned
from shared.jobs.graph import workflow
from shared.jobs.outcome import outcome_of
from shared.jobs.record import Checkpoint, JobRecord, NodeState
from shared.messages import Failure, JobCancelled, encode
from shared.messages.handle import ArenaSlot, TensorHandle
from tests.chaos.check.audit import History, Rule, Stored
from tests.helpers.factories import spec

JOB: Final = "job-1"
WEAK: Final = Failure(code="weak", message="tries again", retryable=True, fields={})


def tensor(arena: str, slot: int) -> TensorHandle:
    place = ArenaSlot(host="here", arena=arena, slot=slot, generation=1, offset=0)
    return TensorHandle(
        dtype="uint8", shape=(1,), nbytes=1, checksum=0, job_id=JOB, attempt=1, expires_at=9e9,
        slot=place,
    )  # fmt: skip


def good_revisions(chance: random.Random, images: int) -> list[JobRecord]:
    """A job from its first revision to its end, as its processes die, fail and give back."""
    revisions = [new_record(JOB, spec(n=images), workflow(spec(n=images)), at=1.0)]
    while not revisions[-1].ended:
        ready = [s for s in revisions[-1].nodes.values() if s.status == "ready"]
        event = _something(chance, chance.choice(ready))
        after, _ = advance(revisions[-1], event)
        if after is not revisions[-1]:
            revisions.append(after)
    return revisions


def _something(chance: random.Random, state: NodeState) -> Event:
    """What may happen to a ready node, from its present holder."""
    name, attempt, lease = state.node.name, state.attempt, state.lease
    holder = f"process-{name}-{attempt}-{lease}"
    step = state.checkpoint.step if state.checkpoint else 0
    match chance.choice(("finish", "checkpoint", "checkpoint", "claim", "return", "fail")):
        case "checkpoint" if state.node.kind == "denoise":
            kept = Checkpoint(step=step + 2, tensors={"x": tensor(holder, step)})
            return Checkpointed(name, attempt, kept, 2.0, lease)
        case "claim" if lease < 4:
            return Claimed(name, attempt, lease, 2.0)
        case "return":
            return Returned(name, attempt, lease, 2.0)
        case "fail" if not state.causes:
            return NodeFailed(name, attempt, WEAK, 2.0, lease)
        case _:
            outputs = {"out": tensor(holder, 100)}
            return NodeFinished(name, attempt, outputs, holder, 2.0, 3.0, lease)


def good_history(chance: random.Random, images: int) -> History:
    revisions = good_revisions(chance, images)
    last = revisions[-1]
    outcome = encode(outcome_of(last))
    kept = range(images) if last.status == "done" else ()
    results = [Stored(i + 1, subjects.image_result(JOB, i), b"image") for i in kept]
    results.append(Stored(images + 1, subjects.result(JOB), outcome))
    return History(
        acknowledged=frozenset({JOB}),
        revisions={JOB: revisions},
        results=results,
        announced=[(subjects.result(JOB), outcome)] * 2,
    )


# ------------------------------------------------------------------------------ how they are broken


def broken(history: History, rule: Rule) -> History:
    """The same with `rule` broken. The job must have ended with its images."""
    outcome = subjects.result(JOB)
    last = history.revisions[JOB][-1]
    cancelled = encode(JobCancelled(job_id=JOB))
    kept = [stored for stored in history.results if stored.subject != outcome]
    match rule:
        case "lost":
            return replace(history, results=kept, revisions={})
        case "second result":
            return replace(history, results=[*history.results, Stored(99, outcome, cancelled)])
        case "image missing":
            return replace(history, results=history.results[1:])
        case "image too many":
            excess = Stored(99, subjects.image_result(JOB, 9), b"image")
            return replace(history, results=[*history.results, excess])
        case "announced differently":
            return replace(history, announced=[(outcome, cancelled)])
        case "outcome disagrees":
            ended = Stored(98, outcome, cancelled)
            return replace(history, results=[*kept, ended], announced=[])
        case "changed after its end":
            changed = msgspec.structs.replace(last, arenas=("another",))
            return replace(history, revisions={JOB: [*history.revisions[JOB], changed]})
        case _:
            return _begun_with(history, _NODE_BREAKERS[rule])


def _begun_with(history: History, breaker: Callable[[NodeState], list[NodeState]]) -> History:
    """With further revisions after the first one, in which only its first node differs."""
    first, *rest = history.revisions[JOB]
    name, state = next(iter(first.nodes.items()))
    more = [
        msgspec.structs.replace(first, nodes={**first.nodes, name: changed})
        for changed in breaker(state)
    ]
    return replace(history, revisions={JOB: [first, *more, *rest]})


def _kept(state: NodeState, step: int, arena: str) -> NodeState:
    checkpoint = Checkpoint(step=step, tensors={"x": tensor(arena, step)})
    return msgspec.structs.replace(state, checkpoint=checkpoint)


def _done(state: NodeState, arena: str) -> NodeState:
    outputs = {"out": tensor(arena, 0)}
    return msgspec.structs.replace(state, status="done", outputs=outputs, worker=arena)


_NODE_BREAKERS: Final[Mapping[Rule, Callable[[NodeState], list[NodeState]]]] = {
    "attempt went back": lambda s: [msgspec.structs.replace(s, attempt=9), s],
    "lease went back": lambda s: [msgspec.structs.replace(s, lease=9), s],
    "checkpoint went back": lambda s: [_kept(s, 4, "one"), _kept(s, 2, "one")],
    "two writers under one lease": lambda s: [_kept(s, 2, "one"), _kept(s, 4, "other")],
    "outputs replaced": lambda s: [_done(s, "one"), _done(s, "other")],
}
