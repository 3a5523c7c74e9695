"""`GET /v1/models`, `GET /v1/models/{id}` and `GET /v1/model_info`."""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from aiohttp import web

from services.gateway.http.core import ANSWER_SECONDS, GATEWAY
from services.gateway.openai.schemas import Model, ModelInfo, ModelList, UnusableView
from services.gateway.replies.errors import http_problem
from services.gateway.replies.json import problem_reply, struct_reply
from shared.bus.discovery import Service, services, unusable_of
from shared.bus.model_states import ModelState, model_states
from shared.bus.unusable import distinct
from shared.errors import DarkroomError
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue
from shared.models.loras import fits


async def show_all(request: web.Request) -> web.Response:
    """Also what cannot be used, and why: as the files show, and as services say that could not load
    it."""
    gateway = request.app[GATEWAY]
    catalogue, loras = gateway.catalogue, gateway.catalogue.lora_directory.names()
    found: Collection[Service] = ()
    with suppress(DarkroomError):  # without the bus, what the files show is told
        found = await services(gateway.bus, ANSWER_SECONDS)
    sources = [card.source for card in catalogue.cards.values()]
    unfit = await asyncio.to_thread(fits.unusable, catalogue.lora_directory, sources)
    unloaded = unusable_of(found)
    unusable = distinct([*catalogue.unusable, *unloaded, *unfit])
    broken = {one.name for one in unloaded if one.kind == "model"}
    cards = [card for card in catalogue.cards.values() if card.name not in broken]
    fit = [name for name in loras if name not in {one.name for one in unfit}]
    states = model_states(found)
    models = [describe(card, catalogue, fit, states.get(card.name)) for card in cards]
    unusable_views = [
        UnusableView(id=one.name, kind=one.kind, reason=one.reason) for one in unusable
    ]
    return struct_reply(ModelList(data=models, unusable=unusable_views))


async def show(request: web.Request) -> web.Response:
    """By any name that a request may call it."""
    gateway = request.app[GATEWAY]
    catalogue = gateway.catalogue
    name = request.match_info["model"]
    card = catalogue.find(name) or catalogue.find(f"/{name}")  # proxies make one slash of two
    if card is None:
        allowed = ", ".join((*catalogue.cards, *catalogue.aliases))
        message = f"model {name!r} is not served; allowed: one of {allowed}"
        if (reason := catalogue.reason("model", name)) is not None:
            message += f"; it cannot be used: {reason}"
        return problem_reply(http_problem(404, message, "model_not_found", "model"))
    state = model_states(gateway.found).get(card.name)
    return struct_reply(describe(card, catalogue, catalogue.lora_directory.names(), state))


async def show_default(request: web.Request) -> web.Response:
    """What benchmark clients ask first, to name the model in their requests."""
    card = request.app[GATEWAY].catalogue.default
    return struct_reply(
        ModelInfo(model_path=card.source, served_model_name=card.name, pipeline=card.pipeline)
    )


def describe(
    card: ModelCard, catalogue: Catalogue, loras: list[str], state: ModelState | None = None
) -> Model:
    """What users are told of a model, of what may be named with it, and of its state."""
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
        controls=list(catalogue.controls_for(card.name)),
        aliases=list(catalogue.also_called(card.name)),
        state=state.state if state else None,
        reason=state.reason if state else "",
        seconds=state.seconds if state else None,
    )
