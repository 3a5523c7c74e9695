"""What a request takes alone, on a warm server: the unit of deadlines such as `2x`."""

import asyncio
from collections.abc import Iterable
from statistics import median
from typing import Final

from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.runs.run import Interrupted, run_open
from loadgen.targets.base import Target
from shared.errors import DarkroomError, Misconfigured

REQUESTS: Final = 5
"""Per template, after one that is not counted."""
MAX_TEMPLATES: Final = 64
QUIET_FACTOR: Final = 1.5
"""A server is quiet again when a request takes at most this many times its solo latency."""


class NotMeasured(DarkroomError):
    """A request that was sent alone, to measure or to warm up, was not answered with an image."""

    code = "not_measured"

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(
            f"a request of template {outcome.shot.template!r} that was sent alone ended as "
            f"{outcome.status}: {outcome.failure}",
            template=outcome.shot.template,
            status=outcome.status,
            failure=outcome.failure,
        )


def examples(shots: Iterable[Shot]) -> dict[str, Shot]:
    """The first shot of each template. Raises `Misconfigured` for more than can be measured."""
    found: dict[str, Shot] = {}
    for shot in shots:
        found.setdefault(shot.template, shot)
    if len(found) > MAX_TEMPLATES:
        raise Misconfigured(
            f"{len(found)} kinds of requests are too many to measure alone, {MAX_TEMPLATES} at "
            "most; give --slo in seconds"
        )
    return found


async def solo_latencies(
    shots: Iterable[Shot],
    target: Target,
    *,
    requests: int = REQUESTS,
    stop: asyncio.Event | None = None,
) -> dict[str, float]:
    """Seconds per template: the median of `requests`, sent one at a time after one that warms the
    server up. Raises `NotMeasured`, and `Interrupted` if `stop` is set."""
    return {
        name: median([await _alone(shot, target, stop) for _ in range(requests + 1)][1:])
        for name, shot in examples(shots).items()
    }


async def warm_up(
    shots: Iterable[Shot], target: Target, *, stop: asyncio.Event | None = None
) -> None:
    """One request of each template. Raises `NotMeasured`."""
    for shot in examples(shots).values():
        await _alone(shot, target, stop)


async def until_quiet(
    shot: Shot,
    solo: float,
    target: Target,
    *,
    tries: int = 20,
    stop: asyncio.Event | None = None,
) -> bool:
    """Whether a request like `shot`, sent alone, took about its `solo` latency again within
    `tries`: what an earlier run left in the server's queue is gone then. A server that still
    refuses or fails is asked again after a while."""
    for _ in range(tries):
        try:
            if await _alone(shot, target, stop) <= QUIET_FACTOR * solo:
                return True
        except NotMeasured:
            await asyncio.sleep(solo)
    return False


async def _alone(shot: Shot, target: Target, stop: asyncio.Event | None) -> float:
    now = Shot(shot.number, 0.0, shot.tenant, shot.template, shot.request)
    outcomes = await run_open([now], target, limits=Limits(in_flight=1), stop=stop)
    if stop is not None and stop.is_set():
        raise Interrupted
    [outcome] = outcomes
    if outcome.status != "done":
        raise NotMeasured(outcome)
    return outcome.latency
