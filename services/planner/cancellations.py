"""Answers those who cancel jobs."""

import logging
import time

from shared import subjects
from shared.bus.base import Bus, Message
from shared.errors import DarkroomError, JobNotFound
from shared.jobs.events import CancelRequested
from shared.jobs.record_store import RecordStore
from shared.messages import CancelReply, encode

log = logging.getLogger(__name__)


async def answer_cancel(message: Message, bus: Bus, records: RecordStore) -> None:
    """Cancel the job for good if it still runs, and say how it stands."""
    job_id = subjects.job_of(message.subject)
    try:
        revisioned = await records.load(job_id)
        await records.advance(revisioned, CancelRequested(time.time()))
        reply = CancelReply(job_id=job_id, status=revisioned.record.status)
    except JobNotFound:
        reply = CancelReply(job_id=job_id, status="unknown")
    except DarkroomError as error:
        log.warning("%s could not be cancelled: %s", job_id, error)
        return  # no answer: the client asks again
    if message.reply:
        await bus.publish(message.reply, encode(reply))
