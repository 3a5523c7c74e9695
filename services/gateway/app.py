"""The routes, and a server for as long as a context is open."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from services.gateway.routes import edits, generations, jobs, models, probes
from shared.bus.base import Bus
from shared.client import Darkroom
from shared.errors import Misconfigured
from shared.models.catalogue import Catalogue
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import inject

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 3.0
"""How long requests may take to finish when the gateway leaves; then their jobs are cancelled."""


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


@asynccontextmanager
async def serving(
    bus: Bus,
    catalogue: Catalogue,
    metrics: Metrics,
    host: str,
    port: int,
    *,
    access: AccessControl | None = None,
    max_requests: int = MAX_REQUESTS,
    grace: float = GRACE_SECONDS,
) -> AsyncIterator[Gateway]:
    """Serve HTTP on `host`:`port` (0: a free one; the gateway's `address` says which), to whoever
    `access` lets in: without one, to anybody on this machine.

    Raises `Misconfigured` if `host` is not loopback and `access` does not bring TLS and tokens.
    Leaving takes at most 2 `grace` + `CANCEL_SECONDS`: nothing new is accepted, what runs may
    finish, then it is cancelled together with its job."""
    access = access or AccessControl()
    access.refuse_unprotected(host)
    async with (
        # Twice the requests: watching ends a moment after the request it was for.
        Darkroom(bus, max_jobs=2 * max_requests, headers=inject) as darkroom,
        asyncio.TaskGroup() as tasks,
    ):
        gateway = Gateway(bus, darkroom, catalogue, metrics, tasks, max_requests, access)
        runner = web.AppRunner(
            make_app(gateway),
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,  # a request is small; see `body.read_json`
            shutdown_timeout=grace,
        )
        await runner.setup()
        try:
            gateway.address = await _listen(runner, host, port, access.tls)
            yield gateway
        finally:
            log.info("leaving: %r", gateway)
            await runner.cleanup()
            await (
                gateway.idle()
            )  # handlers whose clients disconnected have begun to cancel jobs by then


async def _listen(runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None) -> str:
    """Raises `Misconfigured` if the address cannot be had."""
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {error.strerror}; set DARKROOM_HTTP_HOST and "
            "DARKROOM_HTTP_PORT (0: a free port)"
        ) from error
    taken: tuple[str, int] = runner.addresses[0][:2]
    return authority(*taken)


def authority(host: str, port: int) -> str:
    """As an address names them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
