"""Dead letters on a bus: listed, tried again, forgotten."""

from collections.abc import Sequence

import pytest

from services.fleet.dead_letters import actions as command
from services.fleet.dead_letters.letters import UNREADABLE, DeadLetterUnusable
from shared import subjects
from shared.bus.base import Bus
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.topology import TOPOLOGY
from shared.errors import BusUnavailable, InvalidRequest, NotFinite, QueueFull
from shared.jobs.dead import DeadLetter
from shared.jobs.record_store import RecordStore
from shared.messages import GenerationRequest, decode, encode
from tests.conftest import run
from tests.helpers import factories, pictures
from tests.services.fleet.dead_letters import dead
from tests.services.gateway.pipeline import pipeline

QUICK = 0.01
"""Patience with planners that are not there."""


async def quiet_bus() -> MemoryBus:
    """Nobody takes what is submitted."""
    bus = MemoryBroker().connect("test")
    await bus.ensure(TOPOLOGY)
    return bus


async def letters(bus: Bus) -> Sequence[str]:
    return await command.having_letters(bus)


async def submitted(bus: Bus, job_id: str) -> GenerationRequest:
    data = await bus.stored(subjects.submit(job_id))
    assert data is not None
    return decode(data, GenerationRequest)


def test_the_newest_come_first_and_the_others_are_counted() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await dead.store(bus, *(dead.poisoned(f"job-{n}", at=100.0 + n) for n in range(5)))
        found = await command.headlines(bus, limit=2)
        assert [line.job_id for line in found.newest] == ["job-4", "job-3"]
        assert found.total == 5

    run(scenario())


def test_a_code_selects() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await dead.store(bus, dead.poisoned("a"), dead.broken("b"))
        found = await command.headlines(bus, limit=9, code="internal_error")
        assert [line.job_id for line in found.newest] == ["b"]
        assert (await command.headlines(bus, limit=9, code="nobody")).total == 0

    run(scenario())


def test_a_letter_that_cannot_be_read_is_listed_kept_and_can_be_dropped() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await bus.store(subjects.dead("odd"), b"\xc1")
        [line] = (await command.headlines(bus, limit=9)).newest
        assert (line.job_id, line.code) == ("odd", UNREADABLE)
        with pytest.raises(DeadLetterUnusable, match=r"odd.*cannot be read"):
            await command.letter_of(bus, "odd")
        assert (await command.retry(bus, "odd", QUICK)).standing == "kept"
        assert await letters(bus) == ["odd"]
        await command.drop(bus, "odd")
        assert await letters(bus) == []

    run(scenario())


def test_a_job_without_a_letter_is_named_before_anything_is_done() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await dead.store(bus, dead.poisoned("a"))
        with pytest.raises(DeadLetterUnusable, match=r"'b'.*darkroom dead list"):
            await command.having_letters(bus, ["a", "b"])
        with pytest.raises(InvalidRequest, match="job_id"):
            await command.letter_of(bus, "no.id")
        assert await command.having_letters(bus, ["a", "a"]) == ["a"]

    run(scenario())


def test_an_accepted_retry_runs_the_same_job_and_its_letter_is_gone() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus):
            letter = dead.poisoned("job-1", deadline=1e12)
            await dead.store(bus, letter)
            retried = await command.retry(bus, "job-1")
            assert (retried.new_job_id, retried.standing) == ("job-1-r1", "accepted")
            assert await letters(bus) == []
            assert letter.record is not None
            assert line.specs["job-1-r1"].seed == letter.record.spec.seed
            assert line.specs["job-1-r1"].deadline is None
            assert (await command.ended(bus, retried)).standing == "done"

    run(scenario())


def test_a_retry_brings_the_pictures_of_the_job_along() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        controls = (factories.control(image=b"one"), factories.control(image=b"two", scale=0.5))
        await dead.store(bus, dead.poisoned("a", controls=controls))
        for number, control in enumerate(controls):
            await bus.store(subjects.job_input("a", number), control.image)
        assert (await command.retry(bus, "a", QUICK)).standing == "queued"
        assert (await submitted(bus, "a-r1")).controls == controls

    run(scenario())


def test_a_retry_of_an_edit_brings_its_image_and_its_mask_along() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        image, mask = pictures.file(pictures.picture()), pictures.file(pictures.mask())
        letter = dead.poisoned("a", image=image, mask=mask, strength=0.5)
        await dead.store(bus, letter)
        await bus.store(subjects.job_input("a", "image"), image)
        retried = await command.retry(bus, "a", QUICK)
        assert "its image mask is gone" in retried.message
        await bus.store(subjects.job_input("a", "mask"), mask)
        assert (await command.retry(bus, "a", QUICK)).standing == "queued"
        again = await submitted(bus, "a-r1")
        assert (again.image, again.mask, again.strength) == (image, mask, 0.5)

    run(scenario())


def test_a_job_whose_pictures_are_gone_is_kept_and_the_picture_named() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        controls = (factories.control(image=b"one"), factories.control(image=b"two"))
        await dead.store(bus, dead.poisoned("a", controls=controls))
        await bus.store(subjects.job_input("a", 0), b"one")
        retried = await command.retry(bus, "a", QUICK)
        assert retried.standing == "kept"
        assert "its image 1 is gone: they are kept for 24 h" in retried.message
        assert await letters(bus) == ["a"]

    run(scenario())


def test_a_refused_retry_keeps_its_letter_and_says_why() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus):
            line.refusal = QueueFull("denoise of pocket-sdxl", 2)
            await dead.store(bus, dead.poisoned())
            retried = await command.retry(bus, "job-1")
            assert retried.standing == "refused"
            assert "denoise of pocket-sdxl is full" in retried.message
            assert await letters(bus) == ["job-1"]
            assert await command.ended(bus, retried) == retried
            line.refusal = None
            assert (await command.retry(bus, "job-1")).new_job_id == "job-1-r2"

    run(scenario())


def test_a_retry_that_fails_again_is_reported_and_dead_lettered_again() -> None:
    async def scenario() -> None:
        async with pipeline() as (line, bus):
            line.failure = NotFinite("the latents are not finite after step 3")
            await dead.store(bus, dead.poisoned())
            retried = await command.ended(bus, await command.retry(bus, "job-1"))
            assert (retried.standing, retried.well) == ("failed", False)
            assert "after step 3" in retried.message
            assert await letters(bus) == ["job-1-r1"]

    run(scenario())


def test_without_a_planner_the_submission_waits_in_the_letters_place() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await dead.store(bus, dead.poisoned("a"), dead.unplanned(encode(factories.request()), "b"))
        retries = [await command.retry(bus, job, QUICK) for job in ("a", "b")]
        assert [r.standing for r in retries] == ["queued", "queued"]
        assert (await submitted(bus, "a-r1")).seed == factories.spec(job_id="a").seed
        assert (await submitted(bus, "b-r1")).job_id == "b-r1"
        assert await letters(bus) == []

    run(scenario())


def test_no_planner_is_waited_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        waited: list[float] = []

        async def retry(bus: Bus, job_id: str, patience: float) -> command.Retried:
            waited.append(patience)
            standing: command.Standing = "queued" if job_id == "b" else "accepted"
            return command.Retried(job_id=job_id, new_job_id=f"{job_id}-r1", standing=standing)

        monkeypatch.setattr(command, "retry", retry)
        assert len([r async for r in command.retry_all(bus, ["a", "b", "c", "d"])]) == 4
        assert waited == [
            command.ACCEPT_SECONDS,
            command.ACCEPT_SECONDS,
            0.0,
            command.ACCEPT_SECONDS,
        ]

    run(scenario())


@pytest.mark.parametrize("trace", ["submission", "record", "outcome", "letter"])
def test_an_id_that_left_any_trace_is_not_used_again(trace: str) -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await dead.store(bus, dead.poisoned("a"))
        if trace == "submission":
            await bus.store(subjects.submit("a-r1"), b"anything")
        elif trace == "record":
            await RecordStore(bus).open(dead.running("a-r1"))
        elif trace == "outcome":
            await bus.store(subjects.result("a-r1"), b"anything")
        else:
            await dead.store(bus, dead.poisoned("a-r1"))
        assert (await command.retry(bus, "a", QUICK)).new_job_id == "a-r2"

    run(scenario())


class Overtaken(MemoryBus):
    """Somebody else submits under an id just before we do."""

    async def store(self, subject, data, headers=None):  # type: ignore[no-untyped-def]
        if subject == subjects.submit("a-r1"):
            await super().store(subject, b"of somebody else")
        return await super().store(subject, data, headers)


def test_who_is_overtaken_takes_the_next_id() -> None:
    async def scenario() -> None:
        bus = Overtaken(MemoryBroker(), "test")
        await bus.ensure(TOPOLOGY)
        await dead.store(bus, dead.poisoned("a"))
        assert (await command.retry(bus, "a", QUICK)).new_job_id == "a-r2"
        assert await bus.stored(subjects.submit("a-r1")) == b"of somebody else"

    run(scenario())


class Broken(MemoryBus):
    """Refuses submissions with `error`."""

    error: Exception

    async def store(self, subject, data, headers=None):  # type: ignore[no-untyped-def]
        if subject.startswith(subjects.submit("")):
            raise self.error
        return await super().store(subject, data, headers)


def test_a_letter_is_kept_when_its_job_cannot_be_submitted() -> None:
    async def scenario() -> None:
        bus = Broken(MemoryBroker(), "test")
        await bus.ensure(TOPOLOGY)
        await dead.store(bus, dead.poisoned("a"))
        bus.error = QueueFull("JOBS", 10)
        retried = await command.retry(bus, "a", QUICK)
        assert (retried.standing, retried.new_job_id) == ("kept", None)
        assert "JOBS is full" in retried.message
        bus.error = BusUnavailable("dr.v1.submit.a-r1", "no answer")
        with pytest.raises(BusUnavailable):
            await command.retry(bus, "a", QUICK)
        assert await letters(bus) == ["a"]

    run(scenario())


def test_dropping_forgets_only_the_letter_that_is_named() -> None:
    async def scenario() -> None:
        bus = await quiet_bus()
        await dead.store(bus, dead.poisoned("a"), dead.poisoned("b"))
        await command.drop(bus, "a")
        await command.drop(bus, "a")
        assert await letters(bus) == ["b"]
        assert isinstance(await command.letter_of(bus, "b"), DeadLetter)

    run(scenario())
