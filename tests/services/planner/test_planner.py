"""What a planner makes of submissions and cancellations. On the fake bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from services.planner import intake
from services.planner.planner import Planner
from shared import subjects
from shared.bus.base import Topology
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.config import Settings
from shared.messages import (
    CancelReply,
    CancelRequest,
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobSpec,
    LoraChoice,
    NodeProgress,
    Outcome,
    decode,
    decode_event,
    decode_outcome,
    encode,
)
from shared.models.catalogue import Catalogue
from shared.shipped import DEFAULT_MODEL
from shared.telemetry.metrics import Metrics
from tests.conftest import HANG_SECONDS, eventually, run
from tests.helpers import pictures
from tests.helpers.factories import catalogue, control, request

SETTINGS = Settings(ack_wait=1.0, poll_seconds=0.1, max_queued=2)


@asynccontextmanager
async def planning(
    topology: Topology = TOPOLOGY, served: Catalogue | None = None
) -> AsyncIterator[MemoryBus]:
    bus = MemoryBroker().connect("test")
    await bus.ensure(topology)
    planner = Planner(bus, served or catalogue(), SETTINGS, Metrics("planner"))
    stop, ready = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(planner.run(stop, ready.set))
        await ready.wait()
        try:
            yield bus
        finally:
            stop.set()


async def submit(bus: MemoryBus, wanted: GenerationRequest) -> None:
    await bus.store(subjects.submit(wanted.job_id), encode(wanted))


async def outcome(bus: MemoryBus, job_id: str) -> Outcome:
    async def ended() -> bool:
        return await bus.stored(subjects.result(job_id)) is not None

    await eventually(ended)
    data = await bus.stored(subjects.result(job_id))
    assert data is not None
    return decode_outcome(data)


async def queued(bus: MemoryBus) -> int:
    return await bus.depth(subjects.WORK, subjects.ALL_WORK)


def test_a_submission_becomes_a_record_and_its_first_node() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await submit(bus, request())
            await eventually(lambda: _is(queued(bus), 1))
            assert await bus.get(subjects.RECORDS, "job-1") is not None
            await eventually(lambda: _is(bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))

    run(scenario())


def test_submitting_a_job_twice_makes_one_job() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await submit(bus, request())
            await eventually(lambda: _is(bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))
            await submit(bus, request(prompt="another prompt"))
            await eventually(lambda: _is(bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))
            assert await queued(bus) == 1
            entry = await bus.get(subjects.RECORDS, "job-1")
            assert entry is not None
            assert b"another prompt" not in entry.value

    run(scenario())


def test_a_malformed_resubmission_cannot_fail_the_job_that_runs() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await submit(bus, request())
            await eventually(lambda: _is(bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))
            await bus.store(subjects.submit("job-1"), b"\xff\xff")
            await eventually(lambda: _is(bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))
            assert await bus.stored(subjects.result("job-1")) is None

    run(scenario())


def test_a_request_that_is_not_allowed_ends_its_job_by_the_name_of_the_field() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await submit(bus, request(steps=0))
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert ended.failure.code == "invalid_request"
            assert ended.failure.fields["field"] == "steps"
            assert await queued(bus) == 0

    run(scenario())


def test_a_lora_for_another_architecture_ends_its_job_and_leaves_no_dead_letter(
    tmp_path: Path,
) -> None:
    key = "lora_unet_double_blocks_0_img_attn_proj.lora_{}.weight"
    tensors = {key.format(one): torch.ones(2, 2) for one in ("down", "up")}
    save_file(tensors, tmp_path / "style.safetensors")

    async def scenario() -> None:
        async with planning(served=Catalogue.load([DEFAULT_MODEL], [str(tmp_path)])) as bus:
            await submit(bus, request(loras=(LoraChoice(name="style"),)))
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert ended.failure.code == "adapter_unusable"
            assert ended.failure.fields["reason"] == "it is a LoRA for FLUX, and this model is SDXL"
            assert await queued(bus) == 0
            assert await bus.stored(subjects.dead("job-1")) is None

    run(scenario())


def test_a_message_that_cannot_be_read_ends_its_job_by_name() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await bus.store(subjects.submit("job-1"), b"\xff\xff")
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert ended.failure.code == "invalid_request"

    run(scenario())


def test_a_job_submitted_under_another_s_subject_is_refused() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await bus.store(subjects.submit("job-2"), encode(request()))
            ended = await outcome(bus, "job-2")
            assert isinstance(ended, JobFailed)
            assert ended.failure.fields["field"] == "job_id"

    run(scenario())


def test_a_full_queue_refuses_further_jobs_by_name() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            for number in range(2):
                await submit(bus, request(job_id=f"early-{number}"))
            await eventually(lambda: _is(queued(bus), 2))
            await submit(bus, request(job_id="late"))
            ended = await outcome(bus, "late")
            assert isinstance(ended, JobFailed)
            assert ended.failure.code == "queue_full"
            assert ended.failure.fields["bound"] == 2

    run(scenario())


def test_room_that_came_free_is_seen_before_a_job_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.planner.queues.REFUSAL_SECONDS", -1.0)  # measure every time

    async def scenario() -> None:
        async with planning() as bus:
            for number in range(2):
                await submit(bus, request(job_id=f"early-{number}"))
            await eventually(lambda: _is(queued(bus), 2))
            consumer = await bus.consumer(subjects.WORK, "encoder", subjects.ALL_WORK, 1.0)
            [taken] = await consumer.fetch(1, 1.0)
            await taken.ack()
            await submit(bus, request(job_id="late"))
            await eventually(lambda: _is(queued(bus), 2))

    run(scenario())


def test_a_cancelled_job_ends_cancelled_and_the_client_is_told() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await submit(bus, request())
            await eventually(lambda: _is(queued(bus), 1))
            cancel = encode(CancelRequest(job_id="job-1"))
            answer = await bus.request(subjects.cancel("job-1"), cancel, timeout=HANG_SECONDS)
            assert decode(answer.data, CancelReply).status == "cancelled"
            assert isinstance(await outcome(bus, "job-1"), JobCancelled)

    run(scenario())


def test_cancelling_a_job_that_nobody_knows_says_so() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            cancel = encode(CancelRequest(job_id="nobody"))
            answer = await bus.request(subjects.cancel("nobody"), cancel, timeout=HANG_SECONDS)
            assert decode(answer.data, CancelReply).status == "unknown"

    run(scenario())


def test_the_pictures_of_a_job_are_stored_by_their_numbers_and_its_record_holds_none() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            pictures = [b"the first picture", b"the second picture"]
            controls = tuple(control(image=picture) for picture in pictures)
            await submit(bus, request(controls=controls))
            await eventually(lambda: _is(queued(bus), 3))  # encode, hint-0, hint-1
            stored = [await bus.stored(subjects.job_input("job-1", k)) for k in range(3)]
            assert stored == [*pictures, None]
            entry = await bus.get(subjects.RECORDS, "job-1")
            assert entry is not None
            assert b"picture" not in entry.value

    run(scenario())


def test_the_image_and_the_mask_of_an_edit_are_stored_by_their_names() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            image, mask = pictures.file(pictures.picture()), pictures.file(pictures.mask())
            await submit(bus, request(image=image, mask=mask))
            await eventually(lambda: _is(queued(bus), 2))  # encode, encode_image
            assert await bus.stored(subjects.job_input("job-1", "image")) == image
            assert await bus.stored(subjects.job_input("job-1", "mask")) == mask
            entry = await bus.get(subjects.RECORDS, "job-1")
            assert entry is not None
            assert image[:40] not in entry.value

    run(scenario())


def test_an_edit_that_shows_nothing_is_refused_by_name() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            image = pictures.file(pictures.picture())
            nothing = pictures.file(pictures.mask(shown=None))
            await submit(bus, request(image=image, mask=nothing))
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert ended.failure.fields["field"] == "mask"
            assert await bus.stored(subjects.job_input("job-1", "image")) is None

    run(scenario())


def test_a_check_that_breaks_is_an_answer_and_no_redelivery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: object) -> JobSpec:
        raise TypeError("what nobody thought of")

    async def scenario() -> None:
        async with planning() as bus:
            image = pictures.file(pictures.picture())
            await submit(bus, request(image=image))
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert "TypeError: what nobody thought of" in ended.failure.message
            await eventually(lambda: _is(bus.depth(subjects.JOBS, subjects.ALL_SUBMITS), 0))

    monkeypatch.setattr(intake, "validate", breaks)
    run(scenario())


def test_pictures_that_a_planner_stored_before_it_ended_are_no_hindrance() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await bus.store(subjects.job_input("job-1", 0), b"a picture")
            await submit(bus, request(controls=(control(),)))
            await eventually(lambda: _is(queued(bus), 2))

    run(scenario())


def test_a_job_that_is_refused_leaves_no_picture() -> None:
    async def scenario() -> None:
        async with planning() as bus:
            await submit(bus, request(controls=(control(), control(model="other"))))
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert ended.failure.fields["field"] == "controls"
            assert await bus.stored(subjects.job_input("job-1", 0)) is None

    run(scenario())


def test_where_there_is_no_room_for_pictures_a_job_is_refused_by_name() -> None:
    async def scenario() -> None:
        narrow = replace(
            TOPOLOGY,
            streams=tuple(
                replace(stream, max_messages=1) if stream.name == subjects.INPUTS else stream
                for stream in TOPOLOGY.streams
            ),
        )
        async with planning(narrow) as bus:
            await submit(bus, request(controls=(control(), control())))
            ended = await outcome(bus, "job-1")
            assert isinstance(ended, JobFailed)
            assert ended.failure.code == "queue_full"
            assert await bus.get(subjects.RECORDS, "job-1") is None
            assert await queued(bus) == 0

    run(scenario())


async def _is(measured: object, wanted: int) -> bool:
    return await measured == wanted  # type: ignore[misc, no-any-return]


def test_whoever_watches_a_job_is_told_once_it_is_accepted() -> None:
    async def scenario() -> None:
        async with planning() as bus, bus.subscribe(subjects.event("job-1")) as events:
            await submit(bus, request())
            event = decode_event((await anext(aiter(events))).data)
            assert isinstance(event, NodeProgress)
            assert (event.node, event.state) == ("plan", "finished")

    run(scenario())
