"""Small things that several handlers answer with."""

from typing import Final

import msgspec
from aiohttp import web

from services.gateway.replies.errors import Problem

JOB_ID: Final = web.RequestKey("JOB_ID", str)
"""The job that a request is about, for its log line and its answer's `X-Job-Id`."""
HOLDER: Final = web.RequestKey("HOLDER", str)
"""Whose token the request came with."""
ORIGIN: Final = web.RequestKey("ORIGIN", str)
"""What addresses of this server begin with, for whoever sent the request."""


def struct_reply(answer: msgspec.Struct, status: int = 200) -> web.Response:
    return _json(msgspec.json.encode(answer), status)


def problem_reply(problem: Problem) -> web.Response:
    reply = _json(problem.body, problem.status)
    reply.headers.update(problem.headers)
    return reply


def _json(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
