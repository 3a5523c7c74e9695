"""Server-sent events of one job: previews, finished images, and what ended it early.

A refusal (a full queue above all) is still an ordinary HTTP error: while a planner decides, nothing
is sent. Then the stream begins with a comment, and another one follows whenever there was nothing
to say for a while, so that neither clients nor proxies take it for dead. With n > 1 every event
carries the `index` of its image.
"""

import base64
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web

from services.gateway.http.core import GATEWAY, Gateway
from services.gateway.openai.fields import ImagesRequest
from services.gateway.openai.schemas import (
    CompletedEvent,
    EditCompletedEvent,
    EditPartialImageEvent,
    ErrorEvent,
    PartialImageEvent,
)
from services.gateway.openai.to_job import quality_of
from services.gateway.openai.usage import usage
from services.gateway.replies.errors import problem_of
from services.gateway.replies.json import JOB_ID
from shared.client.calls import error_of
from shared.client.job import Item, Job
from shared.errors import DarkroomError, JobCancelled
from shared.messages import ImageResult, JobDone, JobFailed, JobSpec, Preview
from shared.messages import JobCancelled as Cancelled

log = logging.getLogger(__name__)

DECISION_SECONDS: Final = 1.0
"""How long a refusal is waited for; one that comes later ends the stream as an event."""
SILENCE_SECONDS: Final = 10.0
"""The longest time in which nothing is sent."""
WAITING: Final = b": waiting\n\n"
"""A comment, which readers of server-sent events skip."""

StreamEvent = PartialImageEvent | CompletedEvent | ErrorEvent


async def stream_images(
    request: web.Request, job: Job, wanted: ImagesRequest, spec: JobSpec, warnings: list[str]
) -> web.StreamResponse:
    """Send the job's events until it ends. Raises what ended it before anything was sent."""
    items = job.events()
    first: Item | None = None
    if await job.something(DECISION_SECONDS):
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
    await response.write(WAITING)
    story = Story(request.app[GATEWAY], job, wanted, spec, warnings)
    try:
        await _send(response, job, first, items, story)
    except DarkroomError as error:
        await response.write(sse(ErrorEvent(error=problem_of(error).detail)))
    await response.write_eof()
    return response


async def _send(
    response: web.StreamResponse,
    job: Job,
    first: Item | None,
    items: AsyncIterator[Item],
    story: "Story",
) -> None:
    """Raises what ended the job, unless it is done."""
    item, sent = first, time.monotonic()
    while not isinstance(item, JobDone):
        event = None if item is None else await story.event(item)
        if event is not None or time.monotonic() - sent >= SILENCE_SECONDS:
            await response.write(WAITING if event is None else sse(event))
            sent = time.monotonic()
        ready = await job.something(sent + SILENCE_SECONDS - time.monotonic())
        item = await anext(items) if ready else None


def sse(event: StreamEvent) -> bytes:
    """One event in the text/event-stream format."""
    name = event.__struct_config__.tag
    return b"event: %s\ndata: %s\n\n" % (str(name).encode(), msgspec.json.encode(event))


class Story:
    """A job's items as the events that tell of them. A preview that comes after its image (they
    are made side by side) is dropped."""

    def __init__(
        self,
        gateway: Gateway,
        job: Job,
        wanted: ImagesRequest,
        spec: JobSpec,
        warnings: list[str],
    ) -> None:
        """`warnings`: what is known to have no effect before the job runs."""
        self._gateway = gateway
        self._job = job
        self._kinds = (
            (PartialImageEvent, CompletedEvent)
            if spec.edit is None
            else (EditPartialImageEvent, EditCompletedEvent)
        )
        self._quality, self._size = quality_of(wanted), f"{spec.width}x{spec.height}"
        self._spec = spec
        self._warnings = list(warnings)
        self._text_tokens = 0
        self._finished: set[int] = set()

    async def event(self, item: Item) -> PartialImageEvent | CompletedEvent | None:
        """Raises what ended the job, if it ended early."""
        _raise_if_failed(self._job, item)
        match item:
            case Preview() if item.index not in self._finished:
                return self._partial(item)
            case ImageResult():
                if not self._finished:  # all of the prompt has been encoded by now
                    await self._learn()
                self._finished.add(item.index)
                return self._completed(item)
            case _:
                return None

    async def _learn(self) -> None:
        """What encoding found."""
        record = await self._gateway.record(self._job.job_id)
        if record is not None:
            self._warnings += record.warnings
            self._text_tokens = record.text_tokens

    def _partial(self, item: Preview) -> PartialImageEvent:
        return self._kinds[0](
            b64_json=base64.b64encode(item.data).decode(),
            created_at=int(time.time()),
            output_format=item.output_format,
            partial_image_index=item.partial_index,
            index=item.index,
            step=item.step,
            quality=self._quality,
            size=self._size,
        )

    def _completed(self, item: ImageResult) -> CompletedEvent:
        return self._kinds[1](
            b64_json=base64.b64encode(item.data).decode(),
            created_at=int(time.time()),
            output_format=item.output_format,
            index=item.index,
            seed=item.seed,
            quality=self._quality,
            size=self._size,
            usage=usage(self._spec, self._gateway.catalogue, self._text_tokens, images=1),
            warnings=self._warnings,
        )


def _raise_if_failed(job: Job, item: Item) -> None:
    match item:
        case JobFailed(failure=failure):
            raise error_of(job.job_id, failure)
        case Cancelled():
            raise JobCancelled(job.job_id)
