"""Ends jobs whose deadline passes while they wait for a worker."""

import asyncio
import logging
import time
from typing import Final

from shared.errors import DarkroomError, JobNotFound
from shared.jobs.events import DeadlinePassed
from shared.jobs.record_store import RecordStore
from shared.policy.expiry import Deadlines

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 0.25
"""How long after its deadline a waiting job may be ended."""


class DeadlineWatch:
    def __init__(self, records: RecordStore) -> None:
        self._records = records
        self._deadlines = Deadlines()

    def __repr__(self) -> str:
        return f"<DeadlineWatch {self._deadlines!r}>"

    def add(self, deadline: float | None, job_id: str) -> None:
        if deadline is not None:
            self._deadlines.add(deadline, job_id)

    async def watch(self) -> None:
        """For as long as this runs."""
        while True:
            await asyncio.sleep(DEADLINE_SECONDS)
            now = time.time()
            for job_id in self._deadlines.passed(now):
                try:
                    revisioned = await self._records.load(job_id)
                    await self._records.advance(revisioned, DeadlinePassed(now))
                except JobNotFound:
                    continue
                except DarkroomError as error:
                    log.warning("the deadline of %s is left to its workers: %s", job_id, error)
