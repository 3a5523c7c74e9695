"""`POST /v1/images/edits`: images that begin from an image."""

from contextlib import ExitStack

from aiohttp import web

from services.gateway.http.body import FORM, JSON, Form, content_type, read_form, read_json
from services.gateway.http.core import GATEWAY
from services.gateway.openai.edit_images import IMAGE_FIELDS, Edit
from services.gateway.openai.fields import EditsRequest
from services.gateway.openai.parsing import parse_edit, parse_json_edit
from services.gateway.openai.to_job import to_job
from services.gateway.routes.generations import respond
from shared.client import new_job_id
from shared.messages import GenerationRequest, JobSpec
from shared.models.catalogue import Catalogue


async def edit(request: web.Request) -> web.StreamResponse:
    """Validate, submit, and answer with the images or a stream of events."""
    with ExitStack() as large:
        return await respond(request, large, *await _wanted(request, large))


async def _wanted(
    request: web.Request, large: ExitStack
) -> tuple[EditsRequest, GenerationRequest, JobSpec]:
    gateway = request.app[GATEWAY]
    if content_type(request, FORM, JSON) == JSON:
        body = await read_json(request, large)
        return await gateway.apart(_understood_json, body, gateway.catalogue)
    form = await read_form(request, large, IMAGE_FIELDS)
    return await gateway.apart(_understood, form, gateway.catalogue)


def _understood(
    form: Form, catalogue: Catalogue
) -> tuple[EditsRequest, GenerationRequest, JobSpec]:
    wanted, images = parse_edit(form.texts), Edit.of(form.files)
    form.files.clear()
    return wanted, *to_job(wanted, new_job_id(), catalogue, images)


def _understood_json(
    body: bytearray, catalogue: Catalogue
) -> tuple[EditsRequest, GenerationRequest, JobSpec]:
    wanted, files = parse_json_edit(body)
    body.clear()
    images = Edit.of(files)
    files.clear()
    return wanted, *to_job(wanted, new_job_id(), catalogue, images)
