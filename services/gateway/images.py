"""`POST /v1/images/generations`, and the images it gives the address of."""

import base64
import time
from typing import Final

from aiohttp import web

from services.gateway.api import parse, to_job
from services.gateway.core import GATEWAY
from services.gateway.replies import JOB_ID, struct_reply
from services.gateway.request import ImagesRequest
from services.gateway.schemas import Image, ImagesResponse, JobSummary
from services.gateway.stream import stream_images
from shared import errors
from shared.client import new_job_id
from shared.messages import ImageResult, JobDone, JobSpec
from shared.watch import Job

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of a request: two prompts of the longest kind, escaped, fit."""
MAX_INDEX_DIGITS: Final = 3


async def generate(request: web.Request) -> web.StreamResponse:
    """Validate, submit, and answer with the images or a stream of events."""
    gateway = request.app[GATEWAY]
    wanted = parse(await _json_body(request))
    job_request, spec = to_job(wanted, new_job_id(), gateway.catalogue)
    request[JOB_ID] = job_request.job_id
    with gateway.slot():
        async with gateway.running(job_request, progress=bool(wanted.stream)) as job:
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


async def _json_body(request: web.Request) -> bytes:
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
        return await request.read()
    except web.RequestPayloadError as error:
        raise errors.InvalidRequest("body", str(error), "a body as its headers say") from error


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
