"""`GET /v1/models` and `GET /v1/models/{id}`."""

from aiohttp import web

from services.gateway.core import GATEWAY
from services.gateway.errors import http_problem
from services.gateway.replies import problem_reply, struct_reply
from services.gateway.schemas import Model, ModelList
from shared.catalogue import ModelCard


async def show_all(request: web.Request) -> web.Response:
    catalogue = request.app[GATEWAY].catalogue
    loras = catalogue.shelf.names()
    models = [
        describe(card, loras, list(catalogue.controls_for(name)))
        for name, card in catalogue.cards.items()
    ]
    return struct_reply(ModelList(data=models))


async def show(request: web.Request) -> web.Response:
    catalogue = request.app[GATEWAY].catalogue
    cards = catalogue.cards
    name = request.match_info["model"]
    if name not in cards:
        message = f"model {name!r} is not served; allowed: one of {', '.join(cards)}"
        return problem_reply(http_problem(404, message, "model_not_found", "model"))
    controls = list(catalogue.controls_for(name))
    return struct_reply(describe(cards[name], catalogue.shelf.names(), controls))


def describe(card: ModelCard, loras: list[str], controls: list[str]) -> Model:
    """What users are told of a model, and of what may be named with it."""
    return Model(
        id=card.name,
        pipeline=card.pipeline,
        samplers=list(card.samplers),
        default_sampler=card.default_sampler,
        default_steps=card.default_steps,
        default_guidance=card.default_guidance,
        default_size=f"{card.default_width}x{card.default_height}",
        max_size=f"{card.max_width}x{card.max_height}",
        size_multiple=card.size_multiple,
        loras=loras,
        controls=controls,
    )
