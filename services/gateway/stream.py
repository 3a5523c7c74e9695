"""Server-sent events of one job: previews, finished images, and what ended it early.

Nothing is sent before the job has shown a first sign of life, so that a refusal (a full queue above
all) is still an ordinary HTTP error. With n > 1 every event carries the `index` of its image.
"""

import base64
import logging
import time
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from services.gateway.api import quality_of
from services.gateway.errors import problem_of
from services.gateway.replies import JOB_ID
from services.gateway.request import ImagesRequest
from services.gateway.schemas import (
    CompletedEvent,
    EditCompletedEvent,
    EditPartialImageEvent,
    ErrorEvent,
    PartialImageEvent,
)
from shared.errors import DarkroomError, JobCancelled
from shared.job_calls import error_of
from shared.messages import ImageResult, JobDone, JobFailed, JobSpec, Preview
from shared.messages import JobCancelled as Cancelled
from shared.watch import Item, Job

log = logging.getLogger(__name__)

StreamEvent = PartialImageEvent | CompletedEvent | ErrorEvent


async def stream_images(
    request: web.Request, job: Job, wanted: ImagesRequest, spec: JobSpec
) -> web.StreamResponse:
    """Send the job's events until it ends. Raises what ended it before anything was sent."""
    items = job.events()
    first = await anext(items)
    _raise_if_failed(job, first)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",  # nginx would hold events back
            "X-Job-Id": request[JOB_ID],
        }
    )
    await response.prepare(request)
    try:
        async for event in _events(job, first, items, wanted, spec):
            await response.write(sse(event))
    except DarkroomError as error:
        await response.write(sse(ErrorEvent(error=problem_of(error).detail)))
    await response.write_eof()
    return response


def sse(event: StreamEvent) -> bytes:
    """One event in the text/event-stream format."""
    name = event.__struct_config__.tag
    return b"event: %s\ndata: %s\n\n" % (str(name).encode(), msgspec.json.encode(event))


async def _events(
    job: Job, first: Item, items: AsyncIterator[Item], wanted: ImagesRequest, spec: JobSpec
) -> AsyncIterator[StreamEvent]:
    """Raises what ended the job, unless it is done. A preview that comes after its image (they
    are made side by side) is dropped."""
    finished: set[int] = set()
    partial_event = PartialImageEvent if spec.edit is None else EditPartialImageEvent
    completed_event = CompletedEvent if spec.edit is None else EditCompletedEvent
    quality, size = quality_of(wanted), f"{spec.width}x{spec.height}"
    item = first
    while not isinstance(item, JobDone):
        _raise_if_failed(job, item)
        if isinstance(item, Preview) and item.index not in finished:
            yield partial_event(
                b64_json=base64.b64encode(item.data).decode(),
                created_at=int(time.time()),
                output_format=item.output_format,
                partial_image_index=item.partial_index,
                index=item.index,
                step=item.step,
                quality=quality,
                size=size,
            )
        elif isinstance(item, ImageResult):
            finished.add(item.index)
            yield completed_event(
                b64_json=base64.b64encode(item.data).decode(),
                created_at=int(time.time()),
                output_format=item.output_format,
                index=item.index,
                seed=item.seed,
                quality=quality,
                size=size,
            )
        item = await anext(items)


def _raise_if_failed(job: Job, item: Item) -> None:
    match item:
        case JobFailed(failure=failure):
            raise error_of(job.job_id, failure)
        case Cancelled():
            raise JobCancelled(job.job_id)
