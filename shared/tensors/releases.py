"""Frees slots while a service runs: for jobs that ended, and for lifetimes that did."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from shared import messages, subjects
from shared.bus.base import Bus
from shared.errors import InvalidRequest

log = logging.getLogger(__name__)


class SlotOwner(Protocol):
    """An arena, or a transport."""

    @property
    def name(self) -> str: ...
    def release_job(self, job_id: str) -> int: ...
    def expire(self, now: float) -> int: ...


async def keep_released(
    bus: Bus,
    owner: SlotOwner,
    expire_every: float = 5.0,
    clock: Callable[[], float] = time.time,
) -> None:
    """Obey the `ReleaseJob` messages for `owner`, and expire its slots every so many seconds.
    Runs until cancelled. Releases are lossy; what one misses, the slot's lifetime ends."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_obey(bus, owner))
        tasks.create_task(_expire(owner, expire_every, clock))


async def _obey(bus: Bus, owner: SlotOwner) -> None:
    async with bus.subscribe(subjects.release(owner.name)) as received:
        async for message in received:
            try:
                release = messages.decode(message.data, messages.ReleaseJob)
            except InvalidRequest as error:
                log.warning("%s: %s", message.subject, error)
                continue
            owner.release_job(release.job_id)


async def _expire(owner: SlotOwner, every: float, clock: Callable[[], float]) -> None:
    while True:
        owner.expire(clock())
        await asyncio.sleep(every)
