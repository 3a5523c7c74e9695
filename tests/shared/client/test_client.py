"""The Python client against a small pipeline on the in-memory bus."""

import asyncio

import pytest

from shared import errors, subjects
from shared.bus.memory import MemoryBroker
from shared.bus.topology import TOPOLOGY
from shared.client import Darkroom, new_job_id
from shared.client.job import MAX_PROGRESS, Item, Job
from shared.errors import BusUnavailable, DeadlineExceeded, InvalidRequest, JobNotFound, QueueFull
from shared.messages import (
    ImageResult,
    JobCancelled,
    JobDone,
    Outcome,
    Preview,
    StepProgress,
    encode,
)
from tests.conftest import eventually, run
from tests.helpers import factories
from tests.services.gateway.pipeline import Pipeline, pipeline


def test_a_submitted_job_gives_its_images_in_order() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            job = await darkroom.submit(factories.request(n=3, seed=7))
            images = await job.images()
            assert [image.index for image in images] == [0, 1, 2]
            assert [image.seed for image in images] == [7, 8, 9]
            assert all(image.data.startswith(b"\x89PNG") for image in images)

    run(scenario())


def test_events_tell_progress_and_previews_then_images_and_end_with_the_outcome() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            job = await darkroom.submit(factories.request(steps=4, previews=2))
            items = [item async for item in job.events()]
            assert [i.step for i in items if isinstance(i, StepProgress)] == [1, 2, 3, 4]
            assert [i.partial_index for i in items if isinstance(i, Preview)] == [0, 1]
            assert [type(i) for i in items if isinstance(i, ImageResult | Outcome)] == [
                ImageResult,
                JobDone,
            ]
            assert isinstance(items[-1], JobDone)
            assert job.dropped == 0

    run(scenario())


def test_a_slow_reader_misses_the_oldest_progress_but_no_image_and_not_the_outcome() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            job = await darkroom.submit(factories.request(n=2, steps=MAX_PROGRESS))
            await job.outcome()
            items = [item async for item in job.events()]
            progress = [item for item in items if not isinstance(item, ImageResult | Outcome)]
            assert len(progress) == MAX_PROGRESS
            assert job.dropped > MAX_PROGRESS - 10
            assert sum(isinstance(item, ImageResult) for item in items) == 2
            assert isinstance(items[-1], JobDone)

    run(scenario())


def test_what_was_not_announced_is_found_where_it_is_stored() -> None:
    async def scenario() -> None:
        async with pipeline(announce=False) as (_, bus), Darkroom(bus) as darkroom:
            job = await darkroom.submit(factories.request(n=2))
            assert len(await job.images()) == 2

    run(scenario())


def test_a_job_can_be_attached_to_after_it_ended() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus):
            async with Darkroom(bus) as darkroom:
                await (await darkroom.submit(factories.request())).images()
            async with Darkroom(bus) as another:
                assert len(await (await another.attach("job-1")).images()) == 1

    run(scenario())


def test_a_job_id_submitted_twice_is_one_job() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            first = await darkroom.submit(factories.request(seed=1))
            second = await darkroom.submit(factories.request(seed=1))
            assert await first.images() == await second.images()
            assert await first.outcome() == await second.outcome()

    run(scenario())


@pytest.mark.parametrize(
    "refusal",
    [
        QueueFull("denoise queue", 7, retry_after=3.0),
        DeadlineExceeded("job-1", 12.0),
        InvalidRequest("steps", 0, "1 to 10"),
    ],
)
def test_what_is_the_users_matter_is_raised_as_the_service_raised_it(
    refusal: errors.DarkroomError,
) -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus) as darkroom:
            line.refusal = refusal
            job = await darkroom.submit(factories.request())
            with pytest.raises(type(refusal)) as raised:
                await job.images()
            assert raised.value.message == refusal.message
            assert raised.value.fields == refusal.fields

    run(scenario())


def test_what_failed_inside_is_raised_as_job_failed_with_the_cause() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus) as darkroom:
            line.failure = errors.Misconfigured("no such weights")
            job = await darkroom.submit(factories.request())
            with pytest.raises(errors.JobFailed, match="no such weights") as raised:
                await job.images()
            assert raised.value.fields["failure_code"] == "misconfigured"
            assert (await darkroom.job("job-1")).status == "failed"

    run(scenario())


def test_a_cancelled_job_ends_as_cancelled_and_cancelling_it_again_says_so() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus) as darkroom:
            line.hold.clear()
            job = await darkroom.submit(factories.request())
            await line.started.wait()
            assert (await job.cancel()).status == "cancelled"
            assert isinstance(await job.outcome(), JobCancelled)
            with pytest.raises(errors.JobCancelled):
                await job.images()
            line.hold.set()
            assert (await job.cancel()).status == "cancelled"

    run(scenario())


def test_cancelling_a_job_that_still_waits_for_a_planner_cancels_it_once_one_takes_it() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        bus = broker.connect("client")
        await bus.ensure(TOPOLOGY)
        line = Pipeline.on(broker)
        async with Darkroom(bus) as darkroom, asyncio.TaskGroup() as group:
            job = await darkroom.submit(factories.request())
            answering = group.create_task(line.answer_cancels())
            await line.listening.wait()
            cancelling = group.create_task(job.cancel())
            await eventually(lambda: _true(line.asked_to_cancel >= 2))
            line.hold.clear()
            planning = group.create_task(line.take_submissions())
            assert (await cancelling).status == "cancelled"
            assert isinstance(await job.outcome(), JobCancelled)
            answering.cancel()
            planning.cancel()

    run(scenario())


def test_cancelling_without_a_planner_says_that_nobody_answers() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("client")
        await bus.ensure(TOPOLOGY)
        async with Darkroom(bus) as darkroom:
            with pytest.raises(BusUnavailable, match="cancel"):
                await darkroom.cancel("job-1")

    run(scenario())


def test_an_unknown_job_is_not_found() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            for lookup in (darkroom.attach, darkroom.job):
                with pytest.raises(JobNotFound, match="nobody"):
                    await lookup("nobody")
            assert (await darkroom.cancel("nobody")).status == "unknown"

    run(scenario())


@pytest.mark.parametrize("job_id", ["", "a.b", "*", ">", "a b", "a\n", "x" * 65])
def test_a_job_id_that_would_be_another_subject_is_refused_everywhere(job_id: str) -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            for attempt in (
                darkroom.submit(factories.request(job_id=job_id)),
                darkroom.attach(job_id),
                darkroom.cancel(job_id),
                darkroom.job(job_id),
                darkroom.image(job_id, 0),
            ):
                with pytest.raises(InvalidRequest, match="job_id"):
                    await attempt

    run(scenario())


def test_a_client_watches_a_bounded_number_of_jobs_and_says_so() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus, max_jobs=2) as darkroom:
            line.hold.clear()
            first = await darkroom.submit(factories.request(job_id=new_job_id()))
            await darkroom.submit(factories.request(job_id=new_job_id()))
            with pytest.raises(QueueFull, match="jobs watched by this client is full"):
                await darkroom.submit(factories.request(job_id=new_job_id()))
            first.close()
            await eventually(lambda: _true("1/2" in repr(darkroom)))
            await darkroom.submit(factories.request(job_id=new_job_id()))

    run(scenario())


def test_leaving_the_client_ends_the_waiting_but_not_the_job() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus):
            line.hold.clear()
            async with Darkroom(bus) as darkroom:
                job = await darkroom.submit(factories.request())
                waiting = asyncio.create_task(job.images())
                await line.started.wait()
            with pytest.raises(BusUnavailable, match="stopped"):
                await waiting
            with pytest.raises(BusUnavailable, match="stopped"):
                _ = [item async for item in job.events()]
            line.hold.set()
            async with Darkroom(bus) as darkroom:
                assert len(await (await darkroom.attach("job-1")).images()) == 1

    run(scenario())


def test_an_error_of_the_caller_leaves_the_client_as_it_was_raised() -> None:
    async def scenario() -> None:
        bus = MemoryBroker().connect("client")
        async with Darkroom(bus):
            raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        run(scenario())


def test_a_reader_that_is_cancelled_can_read_on_later() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus) as darkroom:
            line.hold.clear()
            job = await darkroom.submit(factories.request())
            reading = asyncio.create_task(_read(job))
            await line.started.wait()
            reading.cancel()
            await asyncio.wait([reading])
            line.hold.set()
            items = await _read(job)
            assert isinstance(items[-1], JobDone)

    run(scenario())


def test_an_image_that_expired_is_an_error_that_says_so() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            await (await darkroom.submit(factories.request())).images()
            await bus.remove(subjects.RESULTS, subjects.image_result("job-1", 0))
            with pytest.raises(errors.JobFailed, match="has expired"):
                await (await darkroom.attach("job-1")).images()

    run(scenario())


def test_progress_of_a_kind_that_is_not_known_yet_is_skipped() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus) as darkroom:
            line.hold.clear()
            job = await darkroom.submit(factories.request())
            await bus.publish(subjects.event("job-1"), encode({"type": "from_the_future"}))
            line.hold.set()
            assert len(await job.images()) == 1

    run(scenario())


def test_an_unreadable_outcome_fails_its_own_job_only() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus), Darkroom(bus) as darkroom:
            line.hold.clear()
            broken = await darkroom.submit(factories.request(job_id="broken"))
            other = await darkroom.submit(factories.request(job_id="other"))
            await bus.publish(subjects.result("broken"), b"\xc1")
            with pytest.raises(InvalidRequest):
                await broken.outcome()
            line.hold.set()
            assert len(await other.images()) == 1

    run(scenario())


def test_a_job_prints_how_it_stands() -> None:
    async def scenario() -> None:
        async with pipeline() as (_, bus), Darkroom(bus) as darkroom:
            job = await darkroom.submit(factories.request())
            assert "job-1 running" in repr(job)
            await job.outcome()
            assert "job-1 JobDone, 1 images" in repr(job)

    run(scenario())


async def _read(job: Job) -> list[Item]:
    return [item async for item in job.events()]


async def _true(value: bool) -> bool:
    return value
