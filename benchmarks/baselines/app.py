"""The gateway's routes in front of a queue of images: requests and answers are its own."""

import asyncio
import base64
import time
from typing import Final

import torch
from aiohttp import web

from benchmarks.baselines.drawing import Queue
from services.gateway.http.body import MAX_BODY_BYTES
from services.gateway.openai.parsing import parse
from services.gateway.openai.schemas import Health, Image, ImagesResponse, JobSummary, ModelList
from services.gateway.openai.to_job import to_job
from services.gateway.openai.usage import usage
from services.gateway.replies.errors import http_problem
from services.gateway.replies.json import JOB_ID, problem_reply, struct_reply
from services.gateway.replies.middleware import translate_errors
from services.gateway.routes.models import describe
from services.vae.images import encode_image
from shared.client import new_job_id
from shared.errors import InvalidRequest
from shared.messages import JobSpec
from shared.models.catalogue import Catalogue

QUEUE: Final = web.AppKey("QUEUE", Queue)
CATALOGUE: Final = web.AppKey("CATALOGUE", Catalogue)


def make_app(queue: Queue[torch.Tensor], catalogue: Catalogue) -> web.Application:
    """Serve it with `handler_cancellation`: a client that disconnects gives up its place."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[translate_errors])
    app[QUEUE], app[CATALOGUE] = queue, catalogue
    app.add_routes(
        [
            web.post("/v1/images/generations", generate),
            web.get("/v1/models", show_models),
            web.get("/v1/models/{model}", show_model),
            web.get("/healthz", healthz),
            web.get("/readyz", healthz),
        ]
    )
    return app


async def generate(request: web.Request) -> web.Response:
    """The images by value; there are no streams, addresses and previews here."""
    began = time.monotonic()
    wanted = parse(await request.read())
    if wanted.stream:
        raise InvalidRequest("stream", True, "false")
    if wanted.response_format == "url":
        raise InvalidRequest("response_format", "url", '"b64_json"')
    job, spec = to_job(wanted, new_job_id(), request.app[CATALOGUE])
    request[JOB_ID] = job.job_id
    drawn = await request.app[QUEUE].images(job.job_id, spec)
    # Off the pipeline's thread, so that the next batch has begun.
    encoded = await asyncio.gather(
        *(
            asyncio.to_thread(encode_image, pixels, spec.output_format, spec.output_compression)
            for pixels in drawn
        )
    )
    files = [one.data for one in encoded]
    return struct_reply(
        _response(job.job_id, spec, request.app[CATALOGUE], files, time.monotonic() - began)
    )


def _response(
    job_id: str, spec: JobSpec, catalogue: Catalogue, files: list[bytes], seconds: float
) -> ImagesResponse:
    return ImagesResponse(
        created=int(time.time()),
        data=[
            Image(b64_json=base64.b64encode(file).decode(), seed=spec.seed + i)
            for i, file in enumerate(files)
        ],
        output_format=spec.output_format,
        usage=usage(spec, catalogue, 0, spec.n),
        size=f"{spec.width}x{spec.height}",
        darkroom=JobSummary(
            job_id=job_id,
            model=spec.model,
            seed=spec.seed,
            steps=spec.steps,
            seconds=seconds,
            approximations=[],
        ),
    )


async def show_models(request: web.Request) -> web.Response:
    cards = request.app[CATALOGUE].cards.values()
    return struct_reply(
        ModelList(data=[describe(card, request.app[CATALOGUE], []) for card in cards])
    )


async def show_model(request: web.Request) -> web.Response:
    cards = request.app[CATALOGUE].cards
    name = request.match_info["model"]
    if name not in cards:
        message = f"model {name!r} is not served; allowed: one of {', '.join(cards)}"
        return problem_reply(http_problem(404, message, "model_not_found", "model"))
    return struct_reply(describe(cards[name], request.app[CATALOGUE], []))


async def healthz(request: web.Request) -> web.Response:
    """It is warm before it listens, so there is no other kind of readiness."""
    return struct_reply(Health())
