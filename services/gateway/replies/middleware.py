"""Around every handler: a span, a log line, a metric, and errors in OpenAI's shape."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from services.gateway.http import cors
from services.gateway.http.core import GATEWAY
from services.gateway.http.forwarded import NONE
from services.gateway.replies.errors import Problem, http_problem, problem_of
from services.gateway.replies.json import HOLDER, JOB_ID, ORIGIN, problem_reply
from shared.client import is_random
from shared.errors import DarkroomError, Unauthorized
from shared.telemetry.tracing import request_span

log = logging.getLogger(__name__)
access_log = logging.getLogger("darkroom.access")

OPEN_ROUTES: Final = ("/healthz", "/readyz", "/health")
"""What a probe asks needs no token, and tells nothing that does."""
IMAGE_ROUTE: Final = "/v1/images/{job_id}/{index}"
"""Whoever was told the address of an image may fetch it, if nobody could have guessed it."""
REFUSALS: Final = (401, 413, 429)
"""Statuses of requests that met a limit; they are counted by name."""
HUNG_UP: Final = 499
"""Logged for a client that did not wait for its answer."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One span, one access log line with the job's id, one observation per request."""
    started = time.monotonic()
    status = HUNG_UP
    route = _route(request)
    proxies = request.app[GATEWAY].access.proxies
    try:
        with request_span(f"{request.method} {route}", request.headers):
            response = await handler(request)
        status = response.status
        return response
    finally:
        seconds = time.monotonic() - started
        request.app[GATEWAY].metrics.http_request(request.method, route, status, seconds)
        access_log.info(
            "%s %s %d",
            request.method,
            request.path,
            status,
            extra={
                "route": route,
                "status": status,
                "seconds": round(seconds, 4),
                "client": proxies.client(request.remote or "", request.headers),
                "token": request.get(HOLDER, ""),
                "job_id": request.get(JOB_ID, ""),
            },
        )


@web.middleware
async def translate_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal and failure becomes an answer; only a disconnection passes through."""
    try:
        request[ORIGIN] = _origin(request)
        response = await handler(request)
    except web.HTTPException as error:
        response = _refusal(request, _of_http(request, error))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except DarkroomError as error:
        response = _refusal(request, problem_of(error))
        if response.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
    except ConnectionError as error:  # the client left while its answer was being written
        raise asyncio.CancelledError from error
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        response = problem_reply(problem_of(error))
    if JOB_ID in request and not response.prepared:
        response.headers["X-Job-Id"] = request[JOB_ID]
    return response


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A browser asks what a page may do before it does it, and never with a token."""
    origin = request.headers.get("Origin")
    asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if origin is None or not asks:
        return await handler(request)
    if not request.app[GATEWAY].access.origins.allows(origin):
        allowed = f"{cors.VARIABLE} lists the origins that may"
        message = f"pages of {origin!r} may not use this gateway; {allowed}"
        return problem_reply(http_problem(403, message, "origin_not_allowed"))
    return web.Response(status=204, headers=cors.preflight(request.headers))


async def tell_browsers(request: web.Request, response: web.StreamResponse) -> None:
    """Add to any answer whose pages may read it, just before its headers are sent."""
    origins = request.app[GATEWAY].access.origins
    for name, value in origins.headers(request.headers.get("Origin")).items():
        response.headers.add(name, value)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where the gateway has tokens, nothing answers without one of them but the probes, and images
    at addresses that cannot be guessed."""
    tokens = request.app[GATEWAY].access.tokens
    if tokens is not None:
        try:
            request[HOLDER] = tokens.holder(request.headers.get("Authorization", ""))
        except Unauthorized:
            if not _open(request):
                raise
    return await handler(request)


def _open(request: web.Request) -> bool:
    route = _route(request)
    if route == IMAGE_ROUTE:
        return is_random(request.match_info["job_id"])
    return route in OPEN_ROUTES


def _refusal(request: web.Request, problem: Problem) -> web.Response:
    # A server that only borrows these middlewares counts nothing.
    if problem.status in REFUSALS and GATEWAY in request.app:
        request.app[GATEWAY].metrics.refused(problem.detail.code)
    return problem_reply(problem)


def _origin(request: web.Request) -> str:
    """What addresses in answers begin with. Raises `InvalidRequest` for a host that cannot be one's
    part. A server that only borrows these middlewares has no proxies."""
    proxies = request.app[GATEWAY].access.proxies if GATEWAY in request.app else NONE
    peer = request.remote or ""
    return proxies.origin(peer, request.headers, request.scheme, request.host)


def _of_http(request: web.Request, error: web.HTTPException) -> Problem:
    match error:
        case web.HTTPRequestEntityTooLarge():
            message = f"the body is too large; allowed: {request.client_max_size} bytes"
            return http_problem(413, message, "request_too_large")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{request.method} is not allowed on {request.path}; allowed: {allowed}"
            return http_problem(405, message, "method_not_allowed")
        case web.HTTPNotFound() if request.match_info.http_exception is not None:
            return http_problem(404, f"there is no {request.path} here", "unknown_url")
        case _:
            code = error.reason.lower().replace(" ", "_")
            return http_problem(error.status, error.text or error.reason, code)


def _route(request: web.Request) -> str:
    """The pattern that matched, so that there are few of them."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical
