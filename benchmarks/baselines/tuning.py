"""`python -m benchmarks.baselines tune`: which window and largest batch suit request batching.

For each pair of them: throughput with more users than it can serve at once, then what Poisson
requests take at half of the highest throughput of all. One pipeline, in this process and without
HTTP, so that nothing but the policy differs; the mix of `benchmarks.serving`. Run it on a quiet
machine: wall time is what is compared.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import mean
from time import process_time
from typing import Any, Final

from benchmarks.baselines.batching import Policy
from benchmarks.baselines.drawing import Queue, drawing
from benchmarks.baselines.pipeline import Pipeline
from benchmarks.harness.numbers import percentile
from benchmarks.harness.traffic_mix import mix, workload
from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.runs.run import run_closed, run_open
from loadgen.targets.base import HTTP_FIELDS, Answer
from loadgen.workload.arrivals import Poisson
from loadgen.workload.workload import schedule
from shared.jobs.validate import validate
from shared.messages import GenerationRequest
from shared.models.catalogue import Catalogue

WINDOWS: Final = (0.0, 0.005, 0.02, 0.05)
MAX_BATCHES: Final = (4, 8, 16)
USERS: Final = 24
WARM_SHARE: Final = 0.2
"""Of a saturated run, before anything counts."""
SAME: Final = 0.05
"""Throughputs that differ by less are not told apart."""


@dataclass(frozen=True, slots=True)
class Saturated:
    images_per_second: float
    cpu_seconds_per_image: float
    mean_batch: float


@dataclass(frozen=True, slots=True)
class Tried:
    """Latencies in seconds, at `rate` requests per second."""

    policy: Policy
    saturated: Saturated
    rate: float
    mean_latency: float
    p95_latency: float


class QueueTarget:
    """A queue in this process, as the load generator sees it."""

    name = "a queue in this process"
    takes = HTTP_FIELDS
    source = None

    def __init__(self, queue: Queue[Any], catalogue: Catalogue) -> None:
        self._queue, self._catalogue = queue, catalogue

    async def send(self, shot: Shot) -> Answer:
        wanted = shot.request
        request = GenerationRequest(
            job_id=str(shot.number),
            prompt=wanted.prompt,
            steps=wanted.steps,
            guidance=wanted.guidance,
            seed=wanted.seed,
        )
        [pixels] = await self._queue.images(request.job_id, validate(request, self._catalogue))
        return Answer("done", None, 1, pixels.numel())


@dataclass
class Tuning:
    """`pipeline` is used on `thread` only."""

    pipeline: Pipeline
    thread: ThreadPoolExecutor
    catalogue: Catalogue
    seconds: float
    """Of each measurement."""
    say: Callable[[str], None]

    async def all(self, windows: Sequence[float], max_batches: Sequence[int]) -> list[Tried]:
        """Every window with every largest batch; saturation of all first, for half of the best is
        the load that all are then given."""
        policies = [
            Policy(most, window) for most, window in itertools.product(max_batches, windows)
        ]
        saturated = {}
        for policy in policies:
            saturated[policy] = await self.saturate(policy)
            self.say(f"{policy}: {saturated[policy]}")
        rate = max(found.images_per_second for found in saturated.values()) / 2
        tried = []
        for policy in policies:
            latencies = await self.load(policy, rate)
            p95 = percentile(latencies, 95)
            tried.append(Tried(policy, saturated[policy], rate, mean(latencies), p95))
            self.say(f"{policy}: mean {mean(latencies):.3f} s, p95 {p95:.3f} s")
        return tried

    async def saturate(self, policy: Policy) -> Saturated:
        """Images that were finished after the warm-up; users ask again at once."""
        batches: list[int] = []

        def draw(specs: Sequence[Any]) -> Sequence[Any]:
            drawn = self.pipeline.draw(specs)
            batches.append(len(specs))
            return drawn

        asked = workload(mix(), Poisson(rate=1.0), self.seconds, seed=7)
        loop = asyncio.get_running_loop()
        async with drawing(draw, [self.thread], policy) as queue:
            run = asyncio.create_task(
                run_closed(
                    asked, QueueTarget(queue, self.catalogue), users=USERS, limits=Limits(drain=0.0)
                )
            )
            await asyncio.sleep(WARM_SHARE * self.seconds)
            began, used, before = loop.time(), process_time(), len(batches)
            await run
            seconds, cpu = loop.time() - began, process_time() - used
        counted = batches[before:]
        images = max(1, sum(counted))
        return Saturated(images / seconds, cpu / images, images / max(1, len(counted)))

    async def load(self, policy: Policy, rate: float) -> list[float]:
        """Latencies of Poisson requests, the same for every policy."""
        shots = schedule(workload(mix(), Poisson(rate=rate), self.seconds, seed=8))
        async with drawing(self.pipeline.draw, [self.thread], policy) as queue:
            outcomes: list[Outcome] = await run_open(shots, QueueTarget(queue, self.catalogue))
        return [outcome.latency for outcome in outcomes]


def best(tried: Sequence[Tried]) -> Tried:
    """The shortest mean latency of those whose throughput is as good as the best."""
    most = max(one.saturated.images_per_second for one in tried)
    enough = [one for one in tried if one.saturated.images_per_second >= (1 - SAME) * most]
    return min(enough, key=lambda one: one.mean_latency)


def table(tried: Sequence[Tried]) -> str:
    """In Markdown."""
    lines = [
        "| max batch | window ms | images/s | mean batch | CPU s per image | mean s | p95 s |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in tried:
        saturated = one.saturated
        lines.append(
            f"| {one.policy.max_batch} | {1000 * one.policy.window:g} "
            f"| {saturated.images_per_second:.2f} | {saturated.mean_batch:.2f} "
            f"| {saturated.cpu_seconds_per_image:.3f} "
            f"| {one.mean_latency:.3f} | {one.p95_latency:.3f} |"
        )
    return "\n".join(lines)


def as_json(tried: Sequence[Tried]) -> dict[str, Any]:
    return {"tried": [asdict(one) for one in tried], "best": asdict(best(tried).policy)}
