"""Whether all systems answer a request with the same picture."""

import base64
from collections.abc import Iterable, Sequence

import aiohttp

from benchmarks.harness.pixels import difference
from benchmarks.serving.systems import System
from loadgen.outcomes.outcome import Shot
from loadgen.targets.base import HTTP_FIELDS
from loadgen.targets.images import PATH, base_url, body


async def max_abs_diff(systems: Sequence[System], shots: Iterable[Shot]) -> int:
    """The worst channel of the worst pixel of each shot's picture, in steps of 1/255, between the
    first system and any other. Raises `aiohttp.ClientResponseError` for a request that failed."""
    worst = 0
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for shot in shots:
            first, *others = [await _picture(session, system, shot) for system in systems]
            worst = max(worst, *(difference(first, other).max_abs_diff for other in others))
    return worst


async def _picture(session: aiohttp.ClientSession, system: System, shot: Shot) -> bytes:
    async with session.post(base_url(system.url) + PATH, json=body(shot, HTTP_FIELDS)) as reply:
        answer = await reply.json()
    return base64.b64decode(answer["data"][0]["b64_json"])
