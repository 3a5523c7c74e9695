"""The one place that carries out what `advance` decides: compare-and-set, then publish."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from shared import subjects
from shared.bus.base import Bus
from shared.errors import JobNotFound, QueueFull, RevisionConflict
from shared.host.crash_points import reached
from shared.jobs.actions import Action, CommitOutcome, DeadLetterJob, PublishNode, ReleaseArenas
from shared.jobs.advance import advance, outstanding
from shared.jobs.dead import DeadLetter
from shared.jobs.events import Event
from shared.jobs.record import JobRecord
from shared.messages import NodeTask, Outcome, ReleaseJob, decode, encode

log = logging.getLogger(__name__)

HeaderSource = Callable[[], Mapping[str, str]]
OnEnd = Callable[[str, Literal["done", "failed", "cancelled"]], None]


@dataclass(slots=True)
class Revisioned:
    """A record as last seen, and the revision to compare with. `RecordStore.advance` refreshes
    it."""

    record: JobRecord
    revision: int


class RecordStore:
    """Reads and advances job records. `headers` (trace context) go with every published node;
    `on_end` is called with model and status when an outcome was committed here."""

    def __init__(
        self, bus: Bus, headers: HeaderSource = dict, on_end: OnEnd = lambda model, status: None
    ) -> None:
        self._bus = bus
        self._headers = headers
        self._on_end = on_end

    async def load(self, job_id: str) -> Revisioned:
        """Raises `JobNotFound`."""
        entry = await self._bus.get(subjects.RECORDS, job_id)
        if entry is None:
            raise JobNotFound(job_id)
        return Revisioned(decode(entry.value, JobRecord), entry.revision)

    async def open(self, record: JobRecord) -> Revisioned:
        """Write a new record and publish its first nodes; of an existing one, what is missing."""
        try:
            revision = await self._bus.create(subjects.RECORDS, record.job_id, encode(record))
            revisioned = Revisioned(record, revision)
        except RevisionConflict:
            revisioned = await self.load(record.job_id)
        await self.publish_outstanding(revisioned)
        return revisioned

    async def advance(self, revisioned: Revisioned, event: Event) -> bool:
        """Apply `event`, then publish what follows from it. True if it changed the record, False
        if it came too late; either way `revisioned` is current and everything outstanding
        published."""
        while True:
            record, actions = advance(revisioned.record, event)
            if record is revisioned.record:
                await self._act(record, actions)
                return False
            reached("advance.before")
            try:
                revisioned.revision = await self._bus.update(
                    subjects.RECORDS, record.job_id, encode(record), revisioned.revision
                )
            except RevisionConflict:
                current = await self.load(record.job_id)
                revisioned.record, revisioned.revision = current.record, current.revision
                continue
            revisioned.record = record
            reached("advance.after")
            await self._act(record, actions)
            return True

    async def publish_outstanding(self, revisioned: Revisioned) -> None:
        await self._act(revisioned.record, outstanding(revisioned.record))

    async def _act(self, record: JobRecord, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case PublishNode(node, attempt):
                    await self._publish_node(record, node, attempt)
                case CommitOutcome(outcome):
                    await self._commit(record, outcome)
                case DeadLetterJob():
                    await self._dead_letter(record)
                case ReleaseArenas(arenas):
                    await self._release(record.job_id, arenas)

    async def _dead_letter(self, record: JobRecord) -> None:
        """Before the outcome is committed, and so never again after it was: the letter may have
        been dropped by then."""
        assert record.failure is not None
        if await self._bus.stored(subjects.result(record.job_id)) is not None:
            return
        letter = DeadLetter(
            job_id=record.job_id,
            buried_at=record.ended_at or 0.0,
            failure=record.failure,
            record=record,
        )
        try:
            await self._bus.store(subjects.dead(record.job_id), encode(letter))
        except QueueFull as error:
            log.error("no letter is kept of job %s: %s", record.job_id, error)

    async def _commit(self, record: JobRecord, outcome: Outcome) -> None:
        reached("commit.before")
        if await self._bus.store(subjects.result(record.job_id), encode(outcome)) == "stored":
            assert record.status != "running"
            self._on_end(record.spec.model, record.status)
        reached("commit.after")

    async def _release(self, job_id: str, arenas: tuple[str, ...]) -> None:
        reached("release.before")
        for arena in arenas:
            await self._bus.publish(subjects.release(arena), encode(ReleaseJob(job_id=job_id)))
        reached("release.after")

    async def _publish_node(self, record: JobRecord, name: str, attempt: int) -> None:
        node = record.nodes[name].node
        subject = subjects.work(
            node.kind, node.model, record.spec.service_class, record.job_id, name, attempt
        )
        task = NodeTask(job_id=record.job_id, node=name, attempt=attempt)
        reached("publish.before")
        await self._bus.store(subject, encode(task), self._headers())
        reached("publish.after")
