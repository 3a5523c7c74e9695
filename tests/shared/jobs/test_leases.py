"""Whose word counts about a node, and when a node is taken for what ended its processes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.jobs.actions import DeadLetterJob
from shared.jobs.advance import advance, new_record
from shared.jobs.events import (
    Checkpointed,
    Claimed,
    InputsLost,
    Isolated,
    NodeEvent,
    NodeFailed,
    NodeFinished,
    Returned,
)
from shared.jobs.graph import workflow
from shared.jobs.leases import MAX_KILLS, MAX_LOSSES, is_suspect
from shared.jobs.record import Checkpoint, JobRecord, NodeState
from shared.messages import Failure
from tests.helpers.factories import spec

FAILURE = Failure(code="internal_error", message="no", retryable=True, fields={})


def record() -> JobRecord:
    return new_record("job", spec(), workflow(spec()), at=0.0)


def encode(job: JobRecord) -> NodeState:
    return job.nodes["encode"]


def after(job: JobRecord, *events: NodeEvent) -> JobRecord:
    for event in events:
        job, _ = advance(job, event)
    return job


def claimed(lease: int) -> Claimed:
    return Claimed("encode", 1, lease, 1.0)


def isolated(lease: int) -> Isolated:
    return Isolated("encode", 1, lease, 1.0)


def checkpointed(step: int, lease: int, alone: bool = False) -> Checkpointed:
    checkpoint = Checkpoint(step=step, tensors={})
    return Checkpointed("encode", 1, checkpoint, 1.0, lease, alone=alone)


def reports(lease: int) -> list[NodeEvent]:
    """Everything a holder can say."""
    return [
        NodeFinished("encode", 1, {}, "worker", 1.0, 2.0, lease),
        NodeFailed("encode", 1, FAILURE, 1.0, lease),
        InputsLost("encode", 1, "x", FAILURE, 1.0, lease),
        checkpointed(3, lease),
        Returned("encode", 1, lease, 1.0),
        isolated(lease),
        claimed(lease),
    ]


@pytest.mark.parametrize("report", reports(1), ids=lambda report: type(report).__name__)
def test_nothing_counts_that_an_earlier_holder_says(report: NodeEvent) -> None:
    job = after(record(), claimed(1))
    assert advance(job, report)[0] is job
    assert advance(job, replace(report, lease=2))[0] is not job


def test_of_two_that_claim_at_once_one_gets_it() -> None:
    job = after(record(), claimed(1))
    again, _ = advance(job, claimed(1))
    assert again is job
    assert encode(job).lease == 2


def test_a_node_given_back_is_no_suspect() -> None:
    job = after(record(), Returned("encode", 1, 1, 1.0), claimed(1))
    assert (encode(job).lease, encode(job).losses) == (2, 0)


def test_a_node_whose_holders_vanished_is_a_suspect_until_it_makes_progress() -> None:
    job = after(record(), claimed(1))
    assert encode(job).losses == 1
    assert not is_suspect(encode(job), unclaimed=False)
    assert is_suspect(encode(job), unclaimed=True)
    assert is_suspect(encode(after(job, claimed(2))), unclaimed=False)
    assert encode(after(job, checkpointed(5, 2))).losses == 0


def test_of_two_who_believe_to_hold_the_first_lease_the_first_to_write_does() -> None:
    """A server that was killed forgets that it has handed a delivery out."""
    one, other = (replace(checkpointed(3, 1), holder=name) for name in ("one", "other"))
    job = after(record(), one)
    assert encode(job).holder == "one"
    assert advance(job, other)[0] is job
    assert advance(job, replace(one, checkpoint=Checkpoint(step=6, tensors={})))[0] is not job


def test_a_holder_that_another_claimed_from_cannot_write_even_under_the_same_number() -> None:
    job = after(record(), Claimed("encode", 1, 1, 1.0, "second"))
    late = NodeFinished("encode", 1, {}, "worker", 1.0, 2.0, 2, "first")
    assert advance(job, late)[0] is job
    assert advance(job, replace(late, holder="second"))[0] is not job


def test_an_earlier_checkpoint_is_taken_but_is_no_progress() -> None:
    job = after(record(), checkpointed(5, 1), claimed(1), checkpointed(3, 2))
    assert encode(job).losses == 1
    assert encode(job).checkpoint == Checkpoint(step=3, tensors={})


def test_two_processes_lost_while_they_ran_it_alone_end_the_job() -> None:
    job = record()
    for lease in range(1, MAX_KILLS + 1):
        job = after(job, isolated(lease))
        assert not job.ended
        job, actions = advance(job, claimed(lease))
    assert job.failure is not None
    assert job.failure.code == "poisoned"
    assert job.failure.fields["kills"] == MAX_KILLS
    assert DeadLetterJob() in actions


def test_processes_lost_while_it_ran_in_company_prove_nothing() -> None:
    job = record()
    for lease in range(1, MAX_LOSSES):
        job = after(job, claimed(lease))
    assert not job.ended
    assert encode(job).kills == 0


def test_but_there_is_a_bound_to_them_too() -> None:
    job = record()
    for lease in range(1, MAX_LOSSES + 1):
        job = after(job, claimed(lease))
    assert job.failure is not None
    assert job.failure.code == "poisoned"


def test_progress_between_two_kills_acquits() -> None:
    job = record()
    for lease, step in ((1, 4), (2, 8), (3, 12)):
        job = after(job, isolated(lease), checkpointed(step, lease, alone=True), claimed(lease))
    assert not job.ended
    assert encode(job).kills == 1


def test_a_holder_that_stopped_being_alone_is_not_charged() -> None:
    job = after(record(), isolated(1), checkpointed(4, 1, alone=False), claimed(1))
    assert (encode(job).losses, encode(job).kills) == (1, 0)


def test_the_next_attempt_begins_with_the_first_lease_and_keeps_what_is_known() -> None:
    job = after(record(), isolated(1), claimed(1), NodeFailed("encode", 1, FAILURE, 1.0, 2))
    state = encode(job)
    assert (state.attempt, state.lease, state.kills, state.alone) == (2, 1, 1, False)


@given(st.lists(st.sampled_from(range(7)), max_size=30), st.data())
def test_leases_only_grow_and_only_their_holder_changes_anything(
    choices: list[int], data: st.DataObject
) -> None:
    job = record()
    for choice in choices:
        before = encode(job)
        lease = data.draw(st.integers(1, before.lease + 1))
        event = reports(lease)[choice]
        job, _ = advance(job, event)
        if lease != before.lease or before.attempt != 1 or before.status != "ready":
            assert encode(job) is before
        elif encode(job).attempt == before.attempt:
            assert encode(job).lease == before.lease + isinstance(event, Claimed)
