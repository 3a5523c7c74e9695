"""Around every handler: a span, a log line, a metric, and errors in OpenAI's shape."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from services.gateway.core import GATEWAY
from services.gateway.errors import Problem, http_problem, problem_of
from services.gateway.replies import HOLDER, JOB_ID, problem_reply
from shared.errors import DarkroomError, InvalidRequest
from shared.telemetry.tracing import request_span

log = logging.getLogger(__name__)
access_log = logging.getLogger("darkroom.access")

OPEN_ROUTES: Final = ("/healthz", "/readyz")
"""What a probe asks needs no token, and tells nothing that does."""
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
                "client": request.remote or "",
                "token": request.get(HOLDER, ""),
                "job_id": request.get(JOB_ID, ""),
            },
        )


@web.middleware
async def translate_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal and failure becomes an answer; only a hang-up passes through."""
    try:
        _check_host(request)
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
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Where the gateway has tokens, nothing but the probes answers without one of them."""
    tokens = request.app[GATEWAY].tokens
    if tokens is not None and _route(request) not in OPEN_ROUTES:
        request[HOLDER] = tokens.holder(request.headers.get("Authorization", ""))
    return await handler(request)


def _refusal(request: web.Request, problem: Problem) -> web.Response:
    # A server that only borrows these middlewares counts nothing.
    if problem.status in REFUSALS and GATEWAY in request.app:
        request.app[GATEWAY].metrics.refused(problem.detail.code)
    return problem_reply(problem)


def _check_host(request: web.Request) -> None:
    """Answers contain addresses made from it."""
    try:
        _ = request.url
    except ValueError as error:
        raise InvalidRequest("Host", request.host, "a host name, and a port from 1") from error


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
