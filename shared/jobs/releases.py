"""Frees slots while a service runs: of jobs that ended, and of lifetimes that did."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from shared import messages, subjects
from shared.bus.base import Bus
from shared.errors import DarkroomError, InvalidRequest
from shared.jobs.record import JobRecord
from shared.tensors.transport import Transport

AUDIT_SECONDS: Final = 15.0
AUDITED: Final = 512
"""Jobs looked up in one audit."""

log = logging.getLogger(__name__)


async def keep_released(
    bus: Bus,
    owner: Transport,
    expire_every: float = 5.0,
    audit_every: float = AUDIT_SECONDS,
    clock: Callable[[], float] = time.time,
) -> None:
    """Obey the `ReleaseJob` and `ReleaseTensor` messages for `owner`, and expire its slots every so
    many seconds. Runs until cancelled. Releases are lossy; what one misses, an audit finds."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_obey(bus, owner))
        tasks.create_task(_expire(owner, expire_every, clock))
        tasks.create_task(_audit(bus, owner, audit_every))


async def _obey(bus: Bus, owner: Transport) -> None:
    async with bus.subscribe(subjects.release(owner.name)) as received:
        async for message in received:
            try:
                release = messages.decode_release(message.data)
            except InvalidRequest as error:
                log.warning("%s: %s", message.subject, error)
                continue
            if isinstance(release, messages.ReleaseTensor):
                owner.free(release.tensor)
            else:
                owner.release_job(release.job_id)


async def _expire(owner: Transport, every: float, clock: Callable[[], float]) -> None:
    while True:
        owner.expire(clock())
        await asyncio.sleep(every)


async def _audit(bus: Bus, owner: Transport, every: float) -> None:
    """Release what is held for jobs that ended, if it was held at the last look already."""
    seen: frozenset[str] = frozenset()
    while True:
        await asyncio.sleep(every)
        try:
            for job_id in sorted(seen & owner.jobs())[:AUDITED]:
                if await _ended(bus, job_id):
                    log.info("the release of job %s was missed", job_id)
                    owner.release_job(job_id)
        except DarkroomError as error:
            log.info("an audit of %s was broken off: %s", owner.name, error)
        seen = owner.jobs()


async def _ended(bus: Bus, job_id: str) -> bool:
    """Also if its record is gone, which outlives every job."""
    entry = await bus.get(subjects.RECORDS, job_id)
    return entry is None or messages.decode(entry.value, JobRecord).ended
