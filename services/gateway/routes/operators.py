"""`POST /v1/models` and `DELETE /v1/models/{id}`: what is served, for the tokens of operators."""

from contextlib import ExitStack

import msgspec
from aiohttp import web

from services.gateway.http.body import read_json
from services.gateway.http.core import GATEWAY, Gateway
from services.gateway.openai.schemas import DeletedModel, NewModel
from services.gateway.replies.json import HOLDER, struct_reply
from services.gateway.routes.models import describe
from shared.bus.model_states import model_states
from shared.errors import Forbidden, InvalidRequest, Misconfigured
from shared.process.served import ServedCatalogue


async def add(request: web.Request) -> web.Response:
    """Serve a model more. One that is served already is no error."""
    served = _served(request)
    with ExitStack() as large:
        body = await read_json(request, large)
    try:
        wanted = msgspec.json.decode(body, type=NewModel)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        allowed = '{"source": "a directory here, or a hub id (OWNER/NAME)"}'
        raise InvalidRequest("body", str(error), allowed) from error
    try:
        card = await served.add(wanted.source)
    except Misconfigured as error:
        raise NotAModel(wanted.source, error.message) from error
    catalogue = served.catalogue
    state = model_states(request.app[GATEWAY].found).get(card.name)
    view = describe(card, catalogue, catalogue.lora_directory.names(), state)
    return struct_reply(view, status=201)


async def remove(request: web.Request) -> web.Response:
    """Serve a model no more: what waits of its jobs, or runs, ends as `model_removed`."""
    card = await _served(request).remove(request.match_info["model"])
    return struct_reply(DeletedModel(id=card.name))


class NotAModel(InvalidRequest):
    """What was to be added is no model, in the words of the catalogue."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__("source", source, f"a model that can be served; {reason}")


def _served(request: web.Request) -> ServedCatalogue:
    """Raises `Forbidden` for all but operators."""
    gateway: Gateway = request.app[GATEWAY]
    if gateway.access.tokens is None:
        raise Forbidden(
            "models: this gateway has no tokens, so nobody can show that they may change what it "
            "serves; allowed: darkroom models add, or a token of an operator (darkroom token "
            "--operator NAME FILE, with the file as DARKROOM_TOKENS)",
            field="models",
        )
    gateway.access.tokens.check_operator(request[HOLDER])
    if gateway.served is None:
        raise Misconfigured("what this gateway serves cannot be changed")
    return gateway.served
