"""`POST /v1/images/edits`: pictures that begin from a picture."""

from contextlib import ExitStack
from typing import Final

from aiohttp import web

from services.gateway.api import Edit, parse_edit, to_job
from services.gateway.body import Form, read_form
from services.gateway.core import GATEWAY
from services.gateway.images import respond
from services.gateway.request import EditsRequest
from shared.catalogue import Catalogue
from shared.client import new_job_id
from shared.messages import GenerationRequest, JobSpec

FILES: Final = ("image", "mask")


async def edit(request: web.Request) -> web.StreamResponse:
    """Validate, submit, and answer with the images or a stream of events."""
    with ExitStack() as large:
        return await respond(request, large, *await _wanted(request, large))


async def _wanted(
    request: web.Request, large: ExitStack
) -> tuple[EditsRequest, GenerationRequest, JobSpec]:
    form = await read_form(request, large, FILES)
    gateway = request.app[GATEWAY]
    return await gateway.apart(_understood, form, gateway.catalogue)


def _understood(
    form: Form, catalogue: Catalogue
) -> tuple[EditsRequest, GenerationRequest, JobSpec]:
    wanted, pictures = parse_edit(form.texts), Edit.of(form.files)
    form.files.clear()
    return wanted, *to_job(wanted, new_job_id(), catalogue, pictures)
