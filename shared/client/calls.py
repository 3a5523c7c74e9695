"""What a job id alone allows: cancelling the job, fetching an image, naming its failure."""

import asyncio
from typing import Final

from shared import errors, subjects
from shared.bus.base import Bus
from shared.messages import CancelReply, CancelRequest, Failure, ImageResult, decode, encode

CANCEL_SECONDS: Final = 2.0
"""How long one cancel request waits for a planner's answer."""

_TRANSLATED: Final[dict[str, type[errors.DarkroomError]]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequest,
        errors.QueueFull,
        errors.DeadlineExceeded,
        errors.DeadlineUnreachable,
        errors.AdapterUnusable,
    )
}


def error_of(job_id: str, failure: Failure) -> errors.DarkroomError:
    """The error to raise for a failed job: what the service raised if it is the user's matter
    (`InvalidRequest`, `QueueFull`, `DeadlineExceeded`, `DeadlineUnreachable`, `AdapterUnusable`),
    else `JobFailed`."""
    kind = _TRANSLATED.get(failure.code)
    if kind is not None:
        error = kind.__new__(kind)  # its message is already written: __init__ would quote it anew
        errors.DarkroomError.__init__(error, failure.message, **failure.fields)
        return error
    fields = {k: v for k, v in failure.fields.items() if k not in ("job_id", "failure_code")}
    return errors.JobFailed(job_id, failure.code, failure.message, **fields)


async def cancel_job(bus: Bus, job_id: str) -> CancelReply:
    """Ask for the job's end; the reply says how it stands. A job that no planner has taken yet
    cannot be cancelled by anybody: this waits for that moment (bound it by `asyncio.timeout`).
    Raises `BusUnavailable` if no planner answers."""
    request = encode(CancelRequest(job_id=job_id))
    pause = 0.02
    while True:
        queued = await bus.stored(subjects.submit(job_id)) is not None
        answer = await bus.request(subjects.cancel(job_id), request, CANCEL_SECONDS)
        reply = decode(answer.data, CancelReply)
        if reply.status != "unknown" or not queued:
            return reply
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.5)


async def stored_image(bus: Bus, job_id: str, index: int) -> ImageResult:
    """Raises `JobFailed` with code `result_missing` if it is not there (any more)."""
    data = await bus.stored(subjects.image_result(job_id, index))
    if data is None:
        raise errors.JobFailed(
            job_id,
            "result_missing",
            f"image {index} of job {job_id} is not stored: it never was, or has expired",
        )
    return decode(data, ImageResult)
