"""The routes, and a server for as long as a context is open."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from services.gateway.http import body
from services.gateway.http.access import AccessControl
from services.gateway.http.core import GATEWAY, MAX_REQUESTS, Gateway
from services.gateway.openapi import document
from services.gateway.replies.middleware import (
    IMAGE_ROUTE,
    answer_preflights,
    authenticate,
    observe,
    tell_browsers,
    translate_errors,
)
from services.gateway.routes import edits, generations, jobs, models, operators, probes
from shared.bus.base import Bus
from shared.client import Darkroom
from shared.errors import Misconfigured
from shared.models.catalogue import Catalogue
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import inject

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 3.0


def make_app(gateway: Gateway) -> web.Application:
    app = web.Application(
        client_max_size=body.MAX_BODY_BYTES,
        middlewares=[observe, translate_errors, answer_preflights, authenticate],
    )
    app.on_response_prepare.append(tell_browsers)
    app[GATEWAY] = gateway
    app.add_routes(
        [
            web.post("/v1/images/generations", generations.generate),
            web.post("/v1/images/edits", edits.edit),
            web.get(IMAGE_ROUTE, generations.image),
            web.get("/v1/models", models.show_all),
            web.post("/v1/models", operators.add),
            web.delete("/v1/models/{model:.+}", operators.remove),
            web.get("/v1/models/{model:.+}", models.show),  # hub ids and paths have slashes
            web.get("/v1/model_info", models.show_default),
            web.get("/v1/jobs/{job_id}", jobs.show),
            web.delete("/v1/jobs/{job_id}", jobs.cancel),
            web.get("/healthz", probes.healthz),
            web.get("/readyz", probes.readyz),
            web.get("/health", probes.readyz),  # as benchmark clients call it
            web.get("/metrics", probes.metrics),
            web.get("/openapi.json", document.show),
        ]
    )
    return app


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where HTTP is served (port 0: a free one; the gateway's `address` says which), and to whom:
    as it is, to anybody on this machine."""

    host: str = "127.0.0.1"
    port: int = 0
    access: AccessControl = field(default_factory=AccessControl)
    max_requests: int = MAX_REQUESTS
    grace: float = GRACE_SECONDS
    """How long requests may take to finish when the gateway leaves; then their jobs are
    cancelled."""


@asynccontextmanager
async def serving(
    bus: Bus, catalogue: Catalogue, metrics: Metrics, http: HttpOptions | None = None
) -> AsyncIterator[Gateway]:
    """Raises `Misconfigured` if the host is not loopback and `access` does not bring TLS and
    tokens. Leaving takes at most 2 `grace` + `CANCEL_SECONDS`: nothing new is accepted, what runs
    may finish, then it is cancelled together with its job."""
    http = http or HttpOptions()
    http.access.refuse_unprotected(http.host)
    async with (
        # Twice the requests: watching ends a moment after the request it was for.
        Darkroom(bus, max_jobs=2 * http.max_requests, headers=inject) as darkroom,
        asyncio.TaskGroup() as tasks,
    ):
        gateway = Gateway(bus, darkroom, catalogue, metrics, tasks, http.max_requests, http.access)
        runner = web.AppRunner(
            make_app(gateway),
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,  # a request is small; see `body.read_json`
            shutdown_timeout=http.grace,
        )
        await runner.setup()
        try:
            gateway.address = await _listen(runner, http)
            yield gateway
        finally:
            log.info("leaving: %r", gateway)
            await runner.cleanup()
            await (
                gateway.idle()
            )  # handlers whose clients disconnected have begun to cancel jobs by then


async def _listen(runner: web.AppRunner, http: HttpOptions) -> str:
    """Raises `Misconfigured` if the address cannot be had."""
    try:
        await web.TCPSite(runner, http.host, http.port, ssl_context=http.access.tls).start()
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {http.host}:{http.port}: {error.strerror}; set DARKROOM_HTTP_HOST "
            "and DARKROOM_HTTP_PORT (0: a free port)"
        ) from error
    taken: tuple[str, int] = runner.addresses[0][:2]
    return authority(*taken)


def authority(host: str, port: int) -> str:
    """As an address names them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
