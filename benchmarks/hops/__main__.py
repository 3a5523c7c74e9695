"""What the way between two processes costs: for a piece of work, and for a tensor.

`stages`: 60 jobs, one at a time on a quiet fleet. Per kind of node, from the moment the node before
it had finished until its own work starts: the record is advanced, the node published, pulled by the
next process, and its record read. `plan` runs from the client's submission to the planner's start,
`deliver` from the end of the last node until the outcome is in the client's hands.

`handle_over_inline`: seconds to give a tensor to another process as a handle (written to an arena,
the handle sent, the bytes read with all checks, a reply), over seconds to send its bytes in
messages over NATS, to the same reply. Below 1, the handle is faster. Up to 64 KiB a tensor rides
inside its handle anyway, so the smallest size is just above. 50 MB is more than one message may
hold (8 MiB) and goes in pieces of 512 KiB. Both ways take turns.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import uvloop

from benchmarks.harness import requests
from benchmarks.harness.fleet import OwnFleet, Rendered, own_fleet, render
from benchmarks.harness.numbers import MILLISECONDS, spread
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from benchmarks.hops.handles import Sender, sender

JOBS: Final = 60
STEPS: Final = 4
"""Few: the hops are the same however long a node runs."""
WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Size:
    name: str
    nbytes: int
    repetitions: int


SIZES: Final = (
    Size("64KB", 64 * 1024, 200),
    Size("512KB", 512 * 1024, 200),
    Size("50MB", 50 * 1024 * 1024, 15),
)


async def measure(options: Options) -> Results:
    jobs = 5 if options.quick else JOBS
    async with own_fleet(options.model) as fleet:
        stages = await _stages(fleet, jobs)
        say(f"{jobs} jobs")
        # On a loop of the kind that the services run on, as the receiver is.
        tensors = await asyncio.to_thread(lambda: uvloop.run(_tensors(fleet, options.quick)))
    return {
        "stages": stages,
        "handle_over_inline": {name: found["ratio"] for name, found in tensors.items()},
        "tensors": tensors,
        "jobs": jobs,
    }


async def _stages(fleet: OwnFleet, jobs: int) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {}
    for number, request in enumerate(requests.plain(WARM_UP + jobs, STEPS)):
        rendered = await render(fleet.darkroom, request)
        record = await fleet.darkroom.job(request.job_id)
        if number >= WARM_UP:
            waits = waiting(rendered, record.created_at, record.ended_at or 0.0)
            for stage, seconds in waits.items():
                found.setdefault(stage, []).append(seconds)
    return {stage: spread(seconds) for stage, seconds in found.items()}


def waiting(rendered: Rendered, created_at: float, ended_at: float) -> dict[str, float]:
    """Seconds before each stage, in the order in which a job goes through them."""
    return {
        "plan": created_at - rendered.submitted_at,
        **{stage.kind: stage.waiting for stage in rendered.done.stages},
        "deliver": rendered.ended_at - ended_at,
    }


async def _tensors(fleet: OwnFleet, quick: bool) -> dict[str, dict[str, float]]:
    async with sender(fleet.url, fleet.arenas) as sending:
        return {
            size.name: await _both_ways(sending, size, 3 if quick else size.repetitions)
            for size in SIZES
        }


async def _both_ways(sending: Sender, size: Size, repetitions: int) -> dict[str, float]:
    data = os.urandom(size.nbytes)
    by_handle, inline = [], []
    for number in range(WARM_UP + repetitions):
        seconds = await sending.by_handle(data), await sending.inline(data)
        if number >= WARM_UP:
            by_handle.append(seconds[0])
            inline.append(seconds[1])
    say(f"{size.name}, both ways")
    return tensor(size.nbytes, by_handle, inline)


def tensor(nbytes: int, by_handle: Sequence[float], inline: Sequence[float]) -> dict[str, float]:
    return {
        "bytes": nbytes,
        "handle_ms": round(median(by_handle) * MILLISECONDS, 3),
        "inline_ms": round(median(inline) * MILLISECONDS, 3),
        "ratio": round(median(by_handle) / median(inline), 3),
    }


def rows(results: Results) -> Cells:
    hops = [
        [f"before {stage}", found["p50_ms"], found["p95_ms"]]
        for stage, found in results["stages"].items()
    ]
    tensors = [
        [f"{name} by handle, inline", f["handle_ms"], f["inline_ms"], f["ratio"]]
        for name, f in results["tensors"].items()
    ]
    return [["", "p50 ms / handle ms", "p95 ms / inline ms", "ratio"], *hops, *tensors]


if __name__ == "__main__":
    run_program("hops", __doc__ or "", measure, rows)
