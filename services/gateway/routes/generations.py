"""`POST /v1/images/generations`, and the images it gives the address of."""

import base64
import time
from contextlib import ExitStack
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from services.gateway.http.body import SMALL_BODY_BYTES, read_json
from services.gateway.http.core import GATEWAY
from services.gateway.openai.fields import ImagesRequest
from services.gateway.openai.ignored import IGNORED
from services.gateway.openai.notes import notes
from services.gateway.openai.parsing import parse
from services.gateway.openai.schemas import Image, ImagesResponse, JobSummary
from services.gateway.openai.to_job import to_job
from services.gateway.openai.undone import UNDONE
from services.gateway.openai.usage import usage
from services.gateway.replies.json import HOLDER, JOB_ID, ORIGIN, struct_reply
from services.gateway.routes.events import stream_images
from shared import errors
from shared.client import checked_job_id, new_job_id
from shared.client.job import Job
from shared.messages import GenerationRequest, ImageResult, JobDone, JobSpec
from shared.models.catalogue import Catalogue

MAX_INDEX_DIGITS: Final = 3

R = TypeVar("R", bound=ImagesRequest)


async def generate(request: web.Request) -> web.StreamResponse:
    """Validate, submit, and answer with the images or a stream of events."""
    with ExitStack() as large:
        return await respond(request, large, *await _wanted(request, large))


async def _wanted(
    request: web.Request, large: ExitStack
) -> tuple[ImagesRequest, GenerationRequest, JobSpec]:
    gateway, body = request.app[GATEWAY], await read_json(request, large)
    if len(body) > SMALL_BODY_BYTES:
        return await gateway.apart(_understood, body, gateway.catalogue)
    return _understood(body, gateway.catalogue)


def _understood(
    body: bytearray, catalogue: Catalogue
) -> tuple[ImagesRequest, GenerationRequest, JobSpec]:
    wanted = parse(body)
    return wanted, *to_job(wanted, new_job_id(), catalogue)


async def respond(
    request: web.Request,
    large: ExitStack,
    wanted: ImagesRequest,
    job_request: GenerationRequest,
    spec: JobSpec,
) -> web.StreamResponse:
    """Submit the job, give back its place among the `large` ones, and answer as `wanted`. Callers
    keep neither the request nor the job: their images are of no use once they are submitted."""
    gateway = request.app[GATEWAY]
    job_request = _of_holder(request, job_request)
    with gateway.slot():
        request[JOB_ID] = job_request.job_id
        async with gateway.running(job_request, progress=bool(wanted.stream)) as job:
            warnings = notes(wanted, spec)
            wanted = _lighter(wanted)
            del job_request
            large.close()
            if wanted.stream:
                return await stream_images(request, job, wanted, spec, warnings)
            return await _answer(request, job, wanted, spec, warnings)


def _of_holder(request: web.Request, wanted: GenerationRequest) -> GenerationRequest:
    """Whose job it is: where there are tokens, fair shares are those of their holders, whatever
    `user` says. Raises `Forbidden`."""
    tokens = request.app[GATEWAY].access.tokens
    if tokens is None:
        return wanted
    tokens.check_class(request[HOLDER], wanted.service_class)
    return msgspec.structs.replace(wanted, user=request[HOLDER])


def _lighter(wanted: R) -> R:
    """Without what may be large, and is not read while the job runs."""
    return msgspec.structs.replace(wanted, controls=None, **dict.fromkeys((*IGNORED, *UNDONE)))


async def image(request: web.Request) -> web.Response:
    """The bytes of one finished image."""
    index = request.match_info["index"]
    if not index.isdecimal() or not index.isascii() or len(index) > MAX_INDEX_DIGITS:
        raise errors.InvalidRequest("index", index, "the number of an image of the job, from 0")
    job_id = request[JOB_ID] = checked_job_id(request.match_info["job_id"])
    found = await request.app[GATEWAY].darkroom.image(job_id, int(index))
    return web.Response(body=found.data, content_type=f"image/{found.output_format}")


def image_url(request: web.Request, job_id: str, index: int) -> str:
    return f"{request[ORIGIN]}/v1/images/{job_id}/{index}"


async def _answer(
    request: web.Request, job: Job, wanted: ImagesRequest, spec: JobSpec, warnings: list[str]
) -> web.Response:
    images = await job.images()
    outcome = await job.outcome()
    assert isinstance(outcome, JobDone)
    response = ImagesResponse(
        created=int(time.time()),
        data=[_image(request, result, wanted) for result in images],
        output_format=spec.output_format,
        size=f"{spec.width}x{spec.height}",
        usage=usage(spec, request.app[GATEWAY].catalogue, outcome.text_tokens, spec.n),
        warnings=[*warnings, *outcome.warnings],
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
