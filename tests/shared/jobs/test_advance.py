"""Every job ends exactly once, whatever happens in whatever order."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.jobs.actions import Action, CommitOutcome, DeadLetterJob, PublishNode, ReleaseArenas
from shared.jobs.advance import (
    MAX_ATTEMPTS,
    MAX_FAILURES,
    advance,
    new_record,
    outstanding,
)
from shared.jobs.events import (
    CancelRequested,
    Checkpointed,
    DeadlinePassed,
    Event,
    InputsLost,
    NodeFailed,
    NodeFinished,
)
from shared.jobs.graph import workflow
from shared.jobs.outcome import outcome_of
from shared.jobs.record import Checkpoint, JobRecord, handles
from shared.messages import (
    EditSpec,
    Failure,
    JobCancelled,
    JobDone,
    JobFailed,
    JobSpec,
    decode,
    encode,
)
from shared.messages.handle import ArenaSlot, TensorHandle

FAILURE = Failure(code="internal_error", message="no", retryable=True, fields={})
FATAL = Failure(code="invalid_request", message="no", retryable=False, fields={})
LOST = Failure(code="handle_lost", message="gone", retryable=True, fields={})


def spec(n: int = 1) -> JobSpec:
    return JobSpec(
        prompt="a large red circle",
        model="pocket-sdxl",
        negative_prompt=None,
        n=n,
        width=128,
        height=128,
        steps=25,
        guidance=5.0,
        sampler="euler",
        seed=1,
        service_class="standard",
        deadline=None,
        previews=0,
        output_format="png",
        output_compression=100,
        user=None,
    )


def record(n: int = 1, edit: EditSpec | None = None) -> JobRecord:
    wanted = msgspec.structs.replace(spec(n), edit=edit)
    return new_record("job", wanted, workflow(wanted), at=0.0)


def handle(arena: str) -> TensorHandle:
    return TensorHandle(
        dtype="uint8",
        shape=(2,),
        nbytes=2,
        checksum=0,
        job_id="job",
        attempt=1,
        expires_at=1e12,
        slot=ArenaSlot(host="h", arena=arena, slot=1, generation=2, offset=4096),
    )


ENCODED = handle("arena-of-encode").name


def lost_from(job: JobRecord, producer: str) -> str:
    """The name of the producer's current output."""
    return job.nodes[producer].outputs["tensor"].name


def finish(job: JobRecord, node: str, attempt: int = 1) -> tuple[JobRecord, tuple[Action, ...]]:
    outputs = {} if node.startswith("decode") else {"tensor": handle(f"arena-of-{node}")}
    return advance(job, NodeFinished(node, attempt, outputs, "worker", 1.0, 2.0))


def test_a_new_job_publishes_its_encode_node_only() -> None:
    assert outstanding(record(3)) == (PublishNode("encode", 1),)


def test_finishing_every_node_in_order_ends_the_job_done_and_releases_its_arenas() -> None:
    job, actions = finish(record(), "encode")
    assert actions == (PublishNode("denoise-0", 1),)
    job, actions = finish(job, "denoise-0")
    assert actions == (PublishNode("decode-0", 1),)
    job, actions = finish(job, "decode-0")
    assert job.status == "done"
    assert actions == (
        CommitOutcome(outcome_of(job)),
        ReleaseArenas(("arena-of-denoise-0", "arena-of-encode")),
    )


def test_images_of_one_job_share_its_encode_node() -> None:
    _, actions = finish(record(3), "encode")
    assert actions == tuple(PublishNode(f"denoise-{i}", 1) for i in range(3))


def test_an_edits_image_is_encoded_beside_its_prompt_and_its_rows_wait_for_both() -> None:
    edit = EditSpec(strength=1.0, mask="file", mask_mode="exact")
    job = record(2, edit)
    assert outstanding(job) == (PublishNode("encode", 1), PublishNode("encode_image", 1))
    job, actions = finish(job, "encode_image")
    assert actions == ()
    job, actions = finish(job, "encode")
    assert actions == (PublishNode("denoise-0", 1), PublishNode("denoise-1", 1))
    job, actions = finish(job, "denoise-0")
    assert actions == (PublishNode("decode-0", 1),)


def test_an_original_that_is_lost_before_it_is_put_back_is_made_again() -> None:
    job = record(1, EditSpec(strength=1.0, mask="alpha", mask_mode="exact"))
    for node in ("encode", "encode_image", "denoise-0"):
        job, _ = finish(job, node)
    lost = lost_from(job, "encode_image")
    job, actions = advance(job, InputsLost("decode-0", 1, lost, LOST, 2.0))
    assert actions == (PublishNode("encode_image", 2),)
    job, actions = finish(job, "encode_image", attempt=2)
    assert actions == (PublishNode("decode-0", 2),)


def test_without_a_mask_decoding_needs_nothing_of_the_original() -> None:
    job = record(1, EditSpec(strength=0.5, mask="none", mask_mode="exact"))
    assert job.nodes["decode-0"].node.inputs == ("denoise-0",)
    assert "encode_image" in job.nodes["denoise-0"].node.inputs


def test_a_late_event_changes_nothing_and_repeats_what_may_be_unpublished() -> None:
    job, _ = finish(record(), "encode")
    again, actions = finish(job, "encode")
    assert again is job
    assert actions == (PublishNode("denoise-0", 1),)


def test_an_event_of_an_earlier_attempt_is_ignored() -> None:
    job, _ = advance(record(), NodeFailed("encode", 1, FAILURE, 1.0))
    again, _ = finish(job, "encode", attempt=1)
    assert again is job
    job, actions = finish(job, "encode", attempt=2)
    assert actions == (PublishNode("denoise-0", 1),)


def test_a_failure_is_retried_until_its_bound_and_then_ends_the_job_by_name() -> None:
    job = record()
    for attempt in range(1, MAX_FAILURES):
        job, actions = advance(job, NodeFailed("encode", attempt, FAILURE, 1.0))
        assert actions == (PublishNode("encode", attempt + 1),)
    job, actions = advance(job, NodeFailed("encode", MAX_FAILURES, FAILURE, 1.0))
    assert job.status == "failed"
    outcome = outcome_of(job)
    assert isinstance(outcome, JobFailed)
    assert outcome.failure == FAILURE


def test_a_failure_that_no_retry_can_mend_ends_the_job_at_once() -> None:
    job, _ = advance(record(), NodeFailed("encode", 1, FATAL, 1.0))
    assert job.status == "failed"


@pytest.mark.parametrize("code", ["adapter_unusable", "invalid_request"])
def test_what_is_the_request_s_own_fault_leaves_no_dead_letter(code: str) -> None:
    failure = msgspec.structs.replace(FATAL, code=code)
    job, actions = advance(record(), NodeFailed("encode", 1, failure, 1.0))
    assert DeadLetterJob() not in actions
    assert CommitOutcome(outcome_of(job)) in actions


def test_a_lost_input_sends_its_producer_back_to_work_and_its_consumer_to_wait() -> None:
    job, _ = finish(record(), "encode")
    job, actions = advance(job, InputsLost("denoise-0", 1, lost_from(job, "encode"), LOST, 3.0))
    assert actions == (PublishNode("encode", 2),)
    assert job.nodes["denoise-0"].status == "waiting"
    job, actions = finish(job, "encode", attempt=2)
    assert actions == (PublishNode("denoise-0", 2),)


def test_two_consumers_that_miss_the_same_input_run_its_producer_once() -> None:
    job, _ = finish(record(2), "encode")
    job, first = advance(job, InputsLost("denoise-0", 1, lost_from(job, "encode"), LOST, 3.0))
    job, second = advance(job, InputsLost("denoise-1", 1, ENCODED, LOST, 3.0))
    assert first == (PublishNode("encode", 2),)
    assert second == ()
    _, actions = finish(job, "encode", attempt=2)
    assert actions == (PublishNode("denoise-0", 2), PublishNode("denoise-1", 2))


def test_the_loss_of_an_output_that_has_been_made_again_does_not_make_it_a_third_time() -> None:
    job, _ = finish(record(2), "encode")
    job, _ = advance(job, InputsLost("denoise-0", 1, ENCODED, LOST, 3.0))
    again = {"tensor": handle("another-arena")}
    job, _ = advance(job, NodeFinished("encode", 2, again, "worker", 3.0, 4.0))
    job, actions = advance(job, InputsLost("denoise-1", 1, ENCODED, LOST, 5.0))
    assert job.nodes["encode"].status == "done"
    assert actions == (PublishNode("denoise-1", 2),)


def test_inputs_that_stay_lost_end_the_job_by_name() -> None:
    job = record()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        job, _ = finish(job, "encode", attempt)
        job, _ = advance(job, InputsLost("denoise-0", attempt, lost_from(job, "encode"), LOST, 3.0))
    assert job.status == "failed"
    assert job.failure == LOST


def test_a_checkpoint_is_kept_until_its_node_is_done() -> None:
    checkpoint = Checkpoint(step=5, tensors={"latents": handle("arena-c")})
    job, _ = finish(record(), "encode")
    job, actions = advance(job, Checkpointed("denoise-0", 1, checkpoint, 2.0))
    assert actions == ()
    assert job.nodes["denoise-0"].checkpoint == checkpoint
    job, _ = finish(job, "denoise-0")
    assert job.nodes["denoise-0"].checkpoint is None
    job, actions = finish(job, "decode-0")
    assert ReleaseArenas(("arena-c", "arena-of-denoise-0", "arena-of-encode")) in actions


@pytest.mark.parametrize("steps_done", range(4))
def test_a_cancelled_job_ends_cancelled_wherever_it_was(steps_done: int) -> None:
    job = record()
    for node in ("encode", "denoise-0", "decode-0")[:steps_done]:
        job, _ = finish(job, node)
    job, _ = advance(job, CancelRequested(9.0))
    assert isinstance(outcome_of(job), JobDone if steps_done == 3 else JobCancelled)


def test_an_expired_job_fails_by_name() -> None:
    job, _ = advance(record(), DeadlinePassed(9.0))
    outcome = outcome_of(job)
    assert isinstance(outcome, JobFailed)
    assert outcome.failure.code == "deadline_exceeded"


def test_a_record_survives_the_wire() -> None:
    job, _ = finish(record(2), "encode")
    job, _ = finish(job, "denoise-1")
    assert decode(encode(job), JobRecord) == job


# One world in which anything may happen between a queue and the workers: messages are delivered
# late, twice, after a crash between writing and publishing, and failures and losses come as drawn.


class World:
    def __init__(self, n: int, edit: EditSpec | None) -> None:
        self.job = record(n, edit)
        self.queue: set[tuple[str, int]] = set()
        self.outcomes: list[object] = []
        self.released: set[str] = set()
        self.act(outstanding(self.job))

    def act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case PublishNode(node, attempt):
                    self.queue.add((node, attempt))
                case CommitOutcome(outcome):
                    self.outcomes.append(outcome)
                case ReleaseArenas(arenas):
                    self.released |= set(arenas)

    def lost(self, node: str) -> str:
        """The name of the last input of `node`, if it has one."""
        for name in reversed(self.job.nodes[node].node.inputs):
            for held in self.job.nodes[name].outputs.values():
                return held.name
        return "none"

    def deliver(self, node: str, attempt: int, fate: str) -> None:
        state = self.job.nodes[node]
        if self.job.ended or state.status != "ready" or state.attempt != attempt:
            self.act(outstanding(self.job))
            self.queue.discard((node, attempt))
            return
        outputs = {} if node.startswith("decode") else {"t": handle(f"{node}-{attempt}")}
        events: dict[str, Event] = {
            "finish": NodeFinished(node, attempt, outputs, "w", 1.0, 2.0),
            "fail": NodeFailed(node, attempt, FAILURE, 2.0),
            "lose": InputsLost(node, attempt, self.lost(node), LOST, 2.0),
            "checkpoint": Checkpointed(
                node, attempt, Checkpoint(step=1, tensors={"t": handle(f"c-{attempt}")}), 2.0
            ),
            "cancel": CancelRequested(2.0),
            "expire": DeadlinePassed(2.0),
        }
        event = events[fate.removesuffix("+crash")]
        self.job, actions = advance(self.job, event)
        if fate.endswith("+crash"):
            return  # written, but neither published nor acknowledged: it is delivered again
        self.act(actions)
        if not isinstance(event, Checkpointed):
            self.queue.discard((node, attempt))


EDITS = st.none() | st.builds(
    EditSpec,
    strength=st.just(0.5),
    mask=st.sampled_from(["none", "file", "alpha"]),
    mask_mode=st.just("exact"),
)
FATES = st.sampled_from(
    [
        *["finish"] * 4,
        "finish+crash",
        "fail",
        "fail+crash",
        "lose",
        "lose+crash",
        "checkpoint",
        "checkpoint+crash",
    ]
)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 3), edit=EDITS, data=st.data())
def test_any_order_of_events_leads_to_exactly_one_end_with_no_handle_held(
    n: int, edit: EditSpec | None, data: st.DataObject
) -> None:
    world = World(n, edit)
    for turn in range(400):
        if not world.queue:
            break
        node, attempt = data.draw(st.sampled_from(sorted(world.queue)))
        fate = data.draw(FATES) if turn < 60 else "finish"
        if turn == data.draw(st.sampled_from([0, 3, 9, -1])):
            fate = data.draw(st.sampled_from(["cancel", "expire", "cancel+crash"]))
        world.deliver(node, attempt, fate)
    assert not world.queue
    assert world.job.ended
    assert world.outcomes
    assert all(outcome == world.outcomes[0] for outcome in world.outcomes)
    held = {h.slot.arena for h in handles(world.job) if h.slot is not None}
    assert held <= world.released
    assert set(world.job.arenas) == world.released


@given(n=st.integers(1, 3), data=st.data())
def test_an_ended_job_is_never_changed_again(n: int, data: st.DataObject) -> None:
    job, _ = advance(record(n), CancelRequested(1.0))
    node = data.draw(st.sampled_from(sorted(job.nodes)))
    for event in (
        NodeFinished(node, 1, {}, "w", 1.0, 2.0),
        NodeFailed(node, 1, FATAL, 2.0),
        InputsLost(node, 1, ENCODED, LOST, 2.0),
        DeadlinePassed(3.0),
    ):
        again, _ = advance(job, event)
        assert again is job
        assert msgspec.to_builtins(again) == msgspec.to_builtins(job)
