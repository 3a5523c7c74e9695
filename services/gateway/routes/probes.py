"""`/healthz`, `/readyz` (also as `/health`) and `/metrics`."""

from collections.abc import Collection
from itertools import product
from typing import Final

from aiohttp import web

from services.gateway.http.core import ANSWER_SECONDS, GATEWAY, Gateway
from services.gateway.openai.schemas import Health, Readiness
from services.gateway.replies.json import struct_reply
from shared.bus.base import Bus
from shared.bus.discovery import Service, refusals, services, unusable_of
from shared.bus.readiness import common
from shared.bus.topology import TOPOLOGY
from shared.errors import DarkroomError
from shared.services import NEEDED
from shared.telemetry.exposition import CONTENT_TYPE, gather_metrics

LOOKS: Final = (ANSWER_SECONDS, 0.6)
"""How long services may take to show themselves. On a machine that is busy some take longer than
they do elsewhere, and are no less ready. Together less than the second that probes wait."""


async def healthz(request: web.Request) -> web.Response:
    """The process runs and its event loop turns; says nothing about anything else."""
    return struct_reply(Health())


async def readyz(request: web.Request) -> web.Response:
    """200 if a request could be served now; else 503 and what is missing."""
    gateway = request.app[GATEWAY]
    try:
        missing = await _missing_streams(gateway.bus)
        if not missing:
            missing = await _missing_services(gateway)
    except DarkroomError as error:
        missing = [f"the bus: {error.message}"]
    return struct_reply(Readiness(ready=not missing, missing=missing), 503 if missing else 200)


async def _missing_services(gateway: Gateway) -> list[str]:
    missing: list[str] = []
    for seconds in LOOKS:
        found = await services(gateway.bus, seconds)
        missing = missing_services(found, gateway.catalogue.cards)
        if not missing:
            break
    return missing


async def metrics(request: web.Request) -> web.Response:
    """The whole fleet's metrics: one scrape is enough, however many processes run."""
    text = await gather_metrics(request.app[GATEWAY].bus)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


def missing_services(found: Collection[Service], models: Collection[str]) -> list[str]:
    """What `models` need and nobody among `found` offers: absent, or with the reason why those that
    are there take no work. A model that cannot be used is no reason not to draw with others."""
    unusable_models = {one.name for one in unusable_of(found) if one.kind == "model"}
    missing: list[str] = []
    for service, model in product(
        NEEDED, [one for one in models if one not in unusable_models] or models
    ):
        each = refusals(found, service, model)
        refusal = common(each)
        if refusal is not None:
            missing.append(f"{service} for {model}: {refusal.reason}")
        elif not each and not _known(found, service, model):
            missing.append(f"{service} for {model}")
    return missing


def _known(found: Collection[Service], service: str, model: str) -> bool:
    """Whether a process of `service` could hold `model`, though it does not now: its jobs wait."""
    return any(
        one.service == service and any(component.name == model for component in one.components)
        for one in found
    )


async def _missing_streams(bus: Bus) -> list[str]:
    missing: list[str] = []
    for stream in TOPOLOGY.streams:
        try:
            await bus.depth(stream.name, stream.subjects[0])
        except DarkroomError as error:
            missing.append(f"stream {stream.name}: {error.message}")
    return missing
