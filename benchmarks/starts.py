"""Whether a fleet that was just started, or has been disturbed, works as well as the others.

Every fleet is new and has the layout of `darkroom up`. Nothing warms it up: 16 users who ask again
at once come as soon as it is ready. Then busy loops, as many as there are cores, take the processor
away for ten seconds while the users go on, and when they are gone the users come once more. Half of
the fleets get requests that carry a deadline of 4 times what one takes alone on a quiet fleet.

`worst_over_median_throughput`: the worst window of fleets without deadlines, over the median of
windows of its kind (after the start, after the disturbance); the smaller of both.
`fewest_rows_per_step`: of any denoiser in any of these windows. `worst_deadline_share`: the least
share of requests in time in any window with deadlines.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from benchmarks.harness.fleet import own_fleet
from benchmarks.harness.program import (
    Cells,
    Options,
    Results,
    cores,
    count_to,
    positive_seconds,
    run_program,
    say,
)
from loadgen.outcomes.limits import Limits
from loadgen.outcomes.occupancy import Key, NatsSource, Steps
from loadgen.outcomes.outcome import Outcome, RequestTemplate
from loadgen.report.statistics.slo import OwnDeadlines
from loadgen.report.statistics.summary import meets
from loadgen.runs.run import run_closed
from loadgen.runs.solo import solo_latencies
from loadgen.targets.http import HttpTarget
from loadgen.workload.workload import Entry, Workload, one_of_each
from services.fleet.plan.processes import parse_replicas
from services.fleet.supervisor.running import Fleet
from shared.host.die_with_parent import command_that_dies_with_us

USERS: Final = 16
STEPS: Final = 25
DEADLINE: Final = 4.0
"""Times the solo latency."""
KINDS: Final = ("start", "disturbed")
BUSY_LOOP: Final = (sys.executable, "-c", "while True: pass")


@dataclass(frozen=True, slots=True)
class Window:
    """`rows`: mean per step of each denoiser that took one. `in_time`: of requests with deadlines,
    None if there were none."""

    kind: str
    images_per_second: float
    rows: tuple[float, ...]
    in_time: float | None


async def measure(options: Options) -> Results:
    fleets = options.own.fleets or (1 if options.quick else 12)
    seconds = options.own.seconds or (2.0 if options.quick else 10.0)
    replicas = parse_replicas(options.own.replicas)
    async with _target(options.model, replicas) as (target, _):
        [solo] = (await solo_latencies(one_of_each(_workload(seconds, None)), target)).values()
    say(f"alone: {solo:.3f} s")
    windows: dict[bool, list[tuple[Window, ...]]] = {False: [], True: []}
    for number in range(fleets):
        for hurried, found in windows.items():
            deadline = DEADLINE * solo if hurried else None
            async with _target(options.model, replicas) as (target, fleet):
                found.append(await _visit(target, fleet, _workload(seconds, deadline)))
            say(f"fleet {number + 1}/{fleets}: {found[-1]}")
    return summary(windows[False], windows[True]) | {"deadline": round(DEADLINE * solo, 3)}


@asynccontextmanager
async def _target(
    model: str, replicas: Mapping[str, int]
) -> AsyncIterator[tuple[HttpTarget, Fleet]]:
    """A new fleet."""
    async with (
        own_fleet(model, replicas=replicas) as own,
        HttpTarget.connect(own.fleet.http_url) as target,
    ):
        yield target, own.fleet


def _workload(seconds: float, deadline: float | None) -> Workload:
    request = RequestTemplate(steps=STEPS, deadline=deadline)
    return Workload(seconds=seconds, mix=(Entry(request=request),))


async def _visit(target: HttpTarget, fleet: Fleet, workload: Workload) -> tuple[Window, ...]:
    """One fleet's windows: after its start, and after a disturbance."""
    first = await _window("start", target, fleet, workload)
    with busy_loops(cores()):
        await run_closed(workload, target, users=USERS, limits=Limits(drain=0.0))
    return first, await _window("disturbed", target, fleet, workload)


async def _window(kind: str, target: HttpTarget, fleet: Fleet, workload: Workload) -> Window:
    source = NatsSource(fleet.bus)
    before = (await source.read()).steps
    load = asyncio.create_task(run_closed(workload, target, users=USERS))
    try:
        begun = time.monotonic()
        await asyncio.sleep(workload.seconds)
        after, elapsed = (await source.read()).steps, time.monotonic() - begun
        return window(kind, await load, elapsed, before, after)
    finally:
        load.cancel()


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    command = command_that_dies_with_us(BUSY_LOOP, signal.SIGKILL)
    loops = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def window(
    kind: str,
    outcomes: Sequence[Outcome],
    seconds: float,
    before: Mapping[Key, Steps],
    after: Mapping[Key, Steps],
) -> Window:
    """Images are counted by the steps that were made: whole ones come in cohorts, as their users
    asked, and in ten seconds of a slow machine one cohort more or less is a fifth."""
    made = [
        Steps(now.steps - then.steps, now.rows - then.rows)
        for key, now in after.items()
        if (then := before.get(key)) is not None
    ]
    met = [found for one in outcomes if (found := meets(OwnDeadlines(), one)) is not None]
    return Window(
        kind,
        round(sum(one.rows for one in made) / STEPS / seconds, 3),
        tuple(round(one.rows / one.steps, 2) for one in made if one.steps),
        round(sum(met) / len(met), 4) if met else None,
    )


def summary(calm: Sequence[Sequence[Window]], hurried: Sequence[Sequence[Window]]) -> Results:
    """Of each fleet's windows, without and with deadlines."""
    plain = [one for fleet in calm for one in fleet]
    speeds = {kind: [one.images_per_second for one in plain if one.kind == kind] for kind in KINDS}
    medians = {kind: median(found) for kind, found in speeds.items()}
    shares = [one.in_time or 0.0 for fleet in hurried for one in fleet]
    return {
        "worst_over_median_throughput": round(
            min(min(speeds[kind]) / medians[kind] if medians[kind] else 0.0 for kind in KINDS), 3
        ),
        "fewest_rows_per_step": min((rows for one in plain for rows in one.rows), default=0.0),
        "worst_deadline_share": min(shares),
        "median_images_per_second": medians,
        "fleets": [[asdict(one) for one in fleet] for fleet in calm],
        "fleets_with_deadlines": [[asdict(one) for one in fleet] for fleet in hurried],
    }


def rows(report: Results) -> Cells:
    table: Cells = [["fleet", "start /s", "rows", "then /s", "rows", "in time", "then"]]
    both = zip(report["fleets"], report["fleets_with_deadlines"], strict=True)
    for number, (calm, hurried) in enumerate(both, start=1):
        line: list[object] = [number]
        for one in calm:
            line += [one["images_per_second"], ", ".join(map(str, one["rows"]))]
        table.append([*line, *(f"{one['in_time']:.0%}" for one in hurried)])
    names = ("worst_over_median_throughput", "fewest_rows_per_step", "worst_deadline_share")
    return [*table, *([name, report[name]] for name in names)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleets", type=count_to(1000), help="of each kind (default 12)")
    parser.add_argument("--seconds", type=positive_seconds, help="of a window (default 10)")
    parser.add_argument(
        "--replicas",
        action="append",
        default=[],
        metavar="SERVICE=N",
        help="another layout than that of `darkroom up`; repeat for several",
    )


if __name__ == "__main__":
    run_program("starts", __doc__ or "", measure, rows, add_arguments)
