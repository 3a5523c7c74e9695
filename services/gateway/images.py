"""`POST /v1/images/generations`, and the images it gives the address of."""

import asyncio
import base64
import time
from contextlib import ExitStack
from typing import Final

import msgspec
from aiohttp import web

from services.gateway.api import parse, to_job
from services.gateway.core import GATEWAY
from services.gateway.replies import JOB_ID, struct_reply
from services.gateway.request import ImagesRequest
from services.gateway.schemas import Image, ImagesResponse, JobSummary
from services.gateway.stream import stream_images
from shared import errors
from shared.client import new_job_id
from shared.jobs.validate import MAX_PICTURE_BYTES
from shared.messages import ImageResult, JobDone, JobSpec
from shared.watch import Job

SMALL_BODY_BYTES: Final = 1024 * 1024
"""Two prompts of the longest kind, escaped, fit."""
MAX_BODY_BYTES: Final = SMALL_BODY_BYTES + 4 * MAX_PICTURE_BYTES // 3
"""Of a request: and all its pictures, in base64."""
BODY_SECONDS: Final = 60.0
"""How long a body may take to arrive."""
MAX_INDEX_DIGITS: Final = 3


async def generate(request: web.Request) -> web.StreamResponse:
    """Validate, submit, and answer with the images or a stream of events."""
    gateway = request.app[GATEWAY]
    with ExitStack() as large:
        wanted = parse(await _json_body(request, large))
        job_request, spec = to_job(wanted, new_job_id(), gateway.catalogue)
        request[JOB_ID] = job_request.job_id
        with gateway.slot():
            async with gateway.running(job_request, progress=bool(wanted.stream)) as job:
                wanted = msgspec.structs.replace(wanted, controls=None)
                del job_request  # pictures that are submitted are of no use here any more
                large.close()
                if wanted.stream:
                    return await stream_images(request, job, wanted, spec)
                return await _answer(request, job, wanted, spec)


async def image(request: web.Request) -> web.Response:
    """The bytes of one finished image."""
    index = request.match_info["index"]
    if not index.isdecimal() or not index.isascii() or len(index) > MAX_INDEX_DIGITS:
        raise errors.InvalidRequest("index", index, "the number of an image of the job, from 0")
    found = await request.app[GATEWAY].darkroom.image(request.match_info["job_id"], int(index))
    return web.Response(body=found.data, content_type=f"image/{found.output_format}")


def image_url(request: web.Request, job_id: str, index: int) -> str:
    return f"{request.url.origin()}/v1/images/{job_id}/{index}"


async def _json_body(request: web.Request, large: ExitStack) -> bytes:
    """A body with pictures takes a place among the large ones, which `large` gives back."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Encoding: {encoding!r} is not allowed; allowed: none, or identity"
        )
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Type: {request.content_type!r} is not allowed; allowed: application/json"
        )
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(request, large)
    except web.RequestPayloadError as error:
        raise errors.InvalidRequest("body", str(error), "a body as its headers say") from error
    except TimeoutError as error:
        text = f"the body did not arrive within {BODY_SECONDS:.0f} s"
        raise web.HTTPRequestTimeout(text=text) from error


async def _read(request: web.Request, large: ExitStack) -> bytes:
    """Unlike `request.read()`, which keeps the body for as long as there is a request."""
    body = bytearray()
    is_large = False
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body))
        if len(body) > SMALL_BODY_BYTES and not is_large:
            large.enter_context(request.app[GATEWAY].large_slot())
            is_large = True
    return bytes(body)


async def _answer(
    request: web.Request, job: Job, wanted: ImagesRequest, spec: JobSpec
) -> web.Response:
    images = await job.images()
    outcome = await job.outcome()
    assert isinstance(outcome, JobDone)
    response = ImagesResponse(
        created=int(time.time()),
        data=[_image(request, result, wanted) for result in images],
        output_format=spec.output_format,
        size=f"{spec.width}x{spec.height}",
        darkroom=JobSummary(
            job_id=job.job_id,
            model=outcome.model,
            seed=outcome.seed,
            steps=outcome.steps,
            seconds=outcome.seconds,
            approximations=outcome.approximations,
        ),
    )
    return struct_reply(response)


def _image(request: web.Request, result: ImageResult, wanted: ImagesRequest) -> Image:
    if wanted.response_format == "url":
        url = image_url(request, result.job_id, result.index)
        return Image(url=url, seed=result.seed)
    return Image(b64_json=base64.b64encode(result.data).decode(), seed=result.seed)
