"""One guided image alone: on one denoiser, and on two that share its guidance.

Two fleets serve the same model of realistic size with random weights (`large_model.py`), one with
one denoiser, one with two. Every denoiser has a core of its own and one torch thread; those of the
two fleets that share a core never work at the same time, since the jobs take turns, in changing
order. What is compared is the median time from the end of one step to that of the next, and whole
jobs, as a client sees them; ratios are medians of those within a round. Differences between the two
fleets' pictures are in steps of 1/255.

`--pocket` measures the model that ships instead: its steps are so short that the way to the other
denoiser and back counts.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.harness import requests
from benchmarks.harness.cpu_pinning import pin
from benchmarks.harness.fleet import OwnFleet, Rendered, denoisers, own_fleet, render
from benchmarks.harness.large_model import LARGE, SMALL, large_model, parameters
from benchmarks.harness.numbers import MILLISECONDS, between
from benchmarks.harness.pixels import difference
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from shared.messages import GenerationRequest

WARM_UP: Final = 3
"""Rounds that do not count. Either of two denoisers may take a job, and asks nobody for half of a
step before it has measured some of its own."""
ENVIRONMENT: Final = {"DARKROOM_THREADS": "1", "DARKROOM_CONTROLS": ""}


@dataclass(frozen=True, slots=True)
class Size:
    steps: int
    rounds: int


FULL: Final = Size(steps=15, rounds=7)
POCKET: Final = Size(steps=40, rounds=15)
QUICK: Final = Size(steps=6, rounds=1)


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of the median step, and of the job, by one denoiser and by two; and how far the
    pictures differ."""

    alone: float
    shared: float
    alone_job: float
    shared_job: float
    difference: int


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else POCKET if options.own.pocket else FULL
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as here:
        model = Path(options.model)
        if not options.own.pocket:
            model = large_model(Path(here) / "large", SMALL if options.quick else LARGE)
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(own_fleet(str(model), 1, environment=ENVIRONMENT))
            two = await stack.enter_async_context(own_fleet(str(model), 2, environment=ENVIRONMENT))
            cores = sorted(os.sched_getaffinity(0))
            _place(one, cores)
            _place(two, cores)
            turns = await _rounds(one, two, size)
            statistics = await _statistics(two)
        return summary(turns, statistics, size) | {"unet_parameters": parameters(model)}


def _place(fleet: OwnFleet, cores: Collection[int]) -> None:
    """A core for each denoiser, as long as there are any."""
    denoisers = [c for c in fleet.fleet.children if c.spec.service == "denoiser"]
    for child, core in zip(denoisers, sorted(cores), strict=False):
        assert child.pid is not None
        pin(child.pid, {core})


async def _rounds(one: OwnFleet, two: OwnFleet, size: Size) -> list[Turn]:
    turns = []
    for number in range(size.rounds + WARM_UP):
        [wanted] = requests.plain(1, size.steps, seed=number)
        found = await _turn(one, two, wanted, alone_first=number % 2 == 0)
        if number < WARM_UP:
            continue
        turns.append(found)
        say(
            f"round {len(turns)}/{size.rounds}: a step takes {MILLISECONDS * found.alone:.0f} ms "
            f"alone, {MILLISECONDS * found.shared:.0f} ms shared"
        )
    return turns


async def _turn(
    one: OwnFleet, two: OwnFleet, wanted: GenerationRequest, *, alone_first: bool
) -> Turn:
    if alone_first:
        alone, shared = await _drawn(one, wanted), await _drawn(two, wanted)
    else:
        shared, alone = await _drawn(two, wanted), await _drawn(one, wanted)
    off = difference(alone.data, shared.data).max_abs_diff
    return Turn(_step(alone), _step(shared), alone.seconds, shared.seconds, off)


async def _drawn(fleet: OwnFleet, wanted: GenerationRequest) -> Rendered:
    """After a moment in which denoisers that have just become idle make themselves known."""
    await asyncio.sleep(0.2)
    return await render(fleet.darkroom, requests.again(wanted))


def _step(drawn: Rendered) -> float:
    return median(between([step.at for step in drawn.steps]))


async def _statistics(fleet: OwnFleet) -> list[dict[str, Any]]:
    """Of each denoiser's engine."""
    found = await denoisers(fleet.fleet.bus)
    return [engine for denoiser in found for engine in denoiser["engines"].values()]


def summary(turns: Sequence[Turn], engines: Sequence[Mapping[str, Any]], size: Size) -> Results:
    """`ratio`: how much faster a step is that two denoisers share."""
    return {
        "ratio": round(median(t.alone / t.shared for t in turns), 3),
        "job_ratio": round(median(t.alone_job / t.shared_job for t in turns), 3),
        "step_alone_ms": round(MILLISECONDS * median(t.alone for t in turns), 2),
        "step_shared_ms": round(MILLISECONDS * median(t.shared for t in turns), 2),
        "shared_share": round(
            sum(e["shared_steps"] for e in engines) / max(1, sum(e["steps"] for e in engines)), 3
        ),
        "max_abs_diff": max(t.difference for t in turns),
        "steps": size.steps,
        "rounds": len(turns),
    }


def rows(report: Results) -> Cells:
    return [
        ["", "one denoiser", "two", "ratio"],
        ["step, ms", report["step_alone_ms"], report["step_shared_ms"], report["ratio"]],
        ["whole job", "", "", report["job_ratio"]],
        ["largest difference, of 255", "", "", report["max_abs_diff"]],
        ["steps that were shared", "", f"{report['shared_share']:.0%}"],
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pocket", action="store_true", help="the model that ships")


if __name__ == "__main__":
    run_program("latent_parallel", __doc__ or "", measure, rows, add_arguments)
