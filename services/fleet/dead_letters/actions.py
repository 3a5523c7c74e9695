"""`darkroom dead`: jobs that were given up, looked at, tried again or forgotten.

A job ends once, and its outcome stands: trying again makes a new job. Its letter is removed when
the new job is accepted, or at least stored for the planners; a crash in between leaves the letter,
so that a job may be tried twice, but is never lost."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from services.fleet.dead_letters.letters import (
    DeadLetterUnusable,
    Headline,
    ImageName,
    headline,
    names_of_images,
    resubmission,
    retry_ids,
    unreadable,
)
from shared import subjects
from shared.bus.base import Bus
from shared.client import Darkroom, checked_job_id
from shared.errors import BusUnavailable, DarkroomError, InvalidRequest
from shared.jobs.dead import DeadLetter
from shared.messages import JobCancelled, JobDone, JobFailed, decode, decode_outcome

ACCEPT_SECONDS: Final = 5.0
"""How long a planner may take to accept a job that is tried again."""
LOOK_SECONDS: Final = 0.05
"""Pause between two looks whether it did."""

Standing = Literal["accepted", "queued", "refused", "kept", "done", "failed", "cancelled"]


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job that was to be tried again.

    accepted  a planner took it: the letter is gone
    queued    it is stored, but no planner took it in time: the letter is gone
    refused   a planner did not want it: the letter stays
    kept      it could not be submitted: the letter stays
    done, failed, cancelled   it was waited for"""

    job_id: str
    new_job_id: str | None
    standing: Standing
    message: str = ""

    @property
    def well(self) -> bool:
        """Whether there is a new job that, as far as is known, will give or gave an image."""
        return self.standing in ("accepted", "queued", "done")


@dataclass(frozen=True, slots=True)
class Headlines:
    """The newest of `total` letters, newest first."""

    newest: Sequence[Headline]
    total: int


async def headlines(bus: Bus, limit: int, code: str | None = None) -> Headlines:
    """The `limit` newest letters, of failures with `code` if given."""
    newest: deque[Headline] = deque(maxlen=limit)
    total = 0
    async for subject, data in bus.listing(subjects.DEAD, subjects.ALL_DEAD):
        line = _headline(subjects.job_of(subject), data)
        if code is None or line.code == code:
            newest.append(line)
            total += 1
    return Headlines(sorted(newest, key=lambda line: -line.buried_at), total)


async def having_letters(bus: Bus, chosen: Sequence[str] | None = None) -> list[str]:
    """Those of `chosen`, each once; None: all that have one, oldest first. Raises
    `DeadLetterUnusable` for the first that has none, before anything is done to the others."""
    if chosen is None:
        listing = bus.listing(subjects.DEAD, subjects.ALL_DEAD)
        return [subjects.job_of(subject) async for subject, _ in listing]
    for job_id in chosen:
        await _stored(bus, job_id)
    return list(dict.fromkeys(chosen))


async def letter_of(bus: Bus, job_id: str) -> DeadLetter:
    """Raises `DeadLetterUnusable`."""
    data = await _stored(bus, job_id)
    try:
        return decode(data, DeadLetter)
    except InvalidRequest as error:
        raise DeadLetterUnusable(job_id, f"its letter cannot be read: {error.message}") from error


async def retry(bus: Bus, job_id: str, patience: float = ACCEPT_SECONDS) -> Retried:
    """Submit the job anew, and give a planner `patience` seconds to take it."""
    try:
        letter = await letter_of(bus, job_id)
        new = await _submit(bus, letter)
    except BusUnavailable:
        raise
    except DarkroomError as error:
        return Retried(job_id=job_id, new_job_id=None, standing="kept", message=error.message)
    refusal: str | None = None
    try:
        async with asyncio.timeout(patience):
            refusal = await _refusal(bus, new)
            standing: Standing = "accepted" if refusal is None else "refused"
    except TimeoutError:
        standing = "queued"
    if refusal is None:
        await bus.remove(subjects.DEAD, subjects.dead(job_id))
    return Retried(job_id=job_id, new_job_id=new, standing=standing, message=refusal or "")


async def retry_all(bus: Bus, jobs: Sequence[str]) -> AsyncIterator[Retried]:
    """One after another. Where no planner took the last one, none is waited for."""
    patience = ACCEPT_SECONDS
    for job_id in jobs:
        retried = await retry(bus, job_id, patience)
        patience = 0.0 if retried.standing == "queued" else ACCEPT_SECONDS
        yield retried


async def ended(bus: Bus, retried: Retried) -> Retried:
    """How it ended, once it has, if it was submitted at all."""
    if retried.new_job_id is None or not retried.well:
        return retried
    async with Darkroom(bus) as darkroom:
        outcome = await (await darkroom.attach(retried.new_job_id)).outcome()
    match outcome:
        case JobDone():
            return msgspec.structs.replace(retried, standing="done")
        case JobCancelled():
            return msgspec.structs.replace(retried, standing="cancelled")
        case JobFailed(failure=failure):
            return msgspec.structs.replace(retried, standing="failed", message=failure.message)


async def drop(bus: Bus, job_id: str) -> None:
    """Forget it for good; nothing happens if it is gone already."""
    await bus.remove(subjects.DEAD, subjects.dead(checked_job_id(job_id)))


def _headline(job_id: str, data: bytes) -> Headline:
    try:
        return headline(decode(data, DeadLetter))
    except InvalidRequest as error:
        return unreadable(job_id, error.message)


async def _stored(bus: Bus, job_id: str) -> bytes:
    data = await bus.stored(subjects.dead(checked_job_id(job_id)))
    if data is None:
        raise DeadLetterUnusable(
            job_id, "it has no dead letter; `darkroom dead list` shows those there are"
        )
    return data


async def _submit(bus: Bus, letter: DeadLetter) -> str:
    """Under the first id that nobody has used; returns it once the submission is durable. Raises
    `DeadLetterUnusable`."""
    images = await _images(bus, letter)
    for job_id in retry_ids(letter.job_id):
        if await _known(bus, job_id):
            continue
        stored = await bus.store(subjects.submit(job_id), resubmission(letter, job_id, images))
        if stored == "stored":  # or somebody was faster
            return job_id
    raise AssertionError("unreachable: there is always another id")


async def _images(bus: Bus, letter: DeadLetter) -> dict[ImageName, bytes]:
    """What the job came with, while it is kept. A submission has its own inside."""
    images: dict[ImageName, bytes] = {}
    for name in names_of_images(letter.record.spec) if letter.record else ():
        image = await bus.stored(subjects.job_input(letter.job_id, name))
        if image is None:
            reason = f"its image {name} is gone: they are kept for 24 h"
            raise DeadLetterUnusable(letter.job_id, reason)
        images[name] = image
    return images


async def _known(bus: Bus, job_id: str) -> bool:
    for subject in (subjects.submit(job_id), subjects.result(job_id), subjects.dead(job_id)):
        if await bus.stored(subject) is not None:
            return True
    return await bus.get(subjects.RECORDS, job_id) is not None


async def _refusal(bus: Bus, job_id: str) -> str | None:
    """None once a planner has accepted the job; why, once one has refused it."""
    while True:
        outcome = await bus.stored(subjects.result(job_id))
        if await bus.get(subjects.RECORDS, job_id) is not None:  # written before any outcome of it
            return None
        if outcome is not None:
            failed = decode_outcome(outcome)
            return failed.failure.message if isinstance(failed, JobFailed) else None
        await asyncio.sleep(LOOK_SECONDS)
