"""Ends jobs for those who cancel them, and answers."""

import logging
import time
from collections.abc import Mapping
from typing import Final, Literal

from shared import subjects
from shared.bus.base import Bus, Message
from shared.errors import DarkroomError, JobNotFound
from shared.jobs.events import CancelRequested
from shared.jobs.record_store import RecordStore
from shared.messages import (
    CancelReply,
    JobCancelled,
    JobDone,
    JobFailed,
    Outcome,
    decode_outcome,
    encode,
)

STATUS: Final[Mapping[type[Outcome], Literal["done", "failed", "cancelled"]]] = {
    JobDone: "done",
    JobFailed: "failed",
    JobCancelled: "cancelled",
}

log = logging.getLogger(__name__)


async def answer_cancel(message: Message, bus: Bus, records: RecordStore) -> None:
    """Cancel the job for good if it still runs, and say how it stands. One that waits to be
    released is ended by the planner that holds it: until then it is unknown, and who asked asks
    again."""
    job_id = subjects.job_of(message.subject)
    try:
        revisioned = await records.load(job_id)
        await records.advance(revisioned, CancelRequested(time.time()))
        reply = CancelReply(job_id=job_id, status=revisioned.record.status)
    except JobNotFound:
        outcome = await bus.stored(subjects.result(job_id))
        status = "unknown" if outcome is None else STATUS[type(decode_outcome(outcome))]
        reply = CancelReply(job_id=job_id, status=status)
    except DarkroomError as error:
        log.warning("%s could not be cancelled: %s", job_id, error)
        return  # no answer: the client asks again
    if message.reply:
        await bus.publish(message.reply, encode(reply))
