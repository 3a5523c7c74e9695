"""Rows with different LoRAs in one batch, against the batch without any, and against diffusers.

Throughput: 8 jobs at once on one denoiser, so that they are one batch, from the first submission to
the last PNG; without LoRAs, with one LoRA for all, with 4 LoRAs by two jobs each, and the latter as
one batch for each LoRA, one after another, which is all that merged weights allow. They take turns.
Exactness: pictures with each LoRA, and with two at once, against diffusers' pipeline with the same
files and scales (`load_lora_weights`, `set_adapters`); ours drawn in one mixed batch, and each
alone, where LoRAs are merged if that pays. Differences are in steps of 1/255. Loading: see
`benchmarks/cold_lora/`.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import msgspec

from benchmarks.baselines.reference import Baseline
from benchmarks.cold_lora import results as cold_results
from benchmarks.cold_lora.__main__ import cold
from benchmarks.harness import requests
from benchmarks.harness.fleet import Rendered, own_fleet, render
from benchmarks.harness.numbers import mean_rows
from benchmarks.harness.pixels import difference, total
from benchmarks.harness.program import Cells, Options, Results, cores, run_program, say
from services.fleet.plan.processes import default_loras
from shared.client import Darkroom
from shared.errors import Misconfigured
from shared.jobs.validate import validate
from shared.messages import GenerationRequest, LoraChoice
from shared.models.catalogue import Catalogue

LORAS: Final = 4
SCALES: Final = (1.0, 0.7)
"""Of the two that a picture has at once."""


@dataclass(frozen=True, slots=True)
class Size:
    jobs: int
    steps: int
    rounds: int


FULL: Final = Size(jobs=8, steps=25, rounds=9)
QUICK: Final = Size(jobs=4, steps=3, rounds=1)


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds for all jobs; `rows`: of the steps of the mixed batch."""

    plain: float
    agreed: float
    mixed: float
    apart: float
    rows: tuple[int, ...]


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    catalogue = Catalogue.load([options.model], default_loras(os.environ))
    names = catalogue.lora_directory.names()[:LORAS]
    if len(names) < LORAS:
        raise Misconfigured(f"{LORAS} LoRAs are needed, DARKROOM_LORAS has {len(names)}")
    async with own_fleet(options.model, denoisers=1) as fleet:
        rounds = await _rounds(fleet.darkroom, names, size)
        differences = await _differences(fleet.darkroom, catalogue, names, size, options.model)
    return summary(rounds, size) | differences | await cold(options.quick)


async def _rounds(darkroom: Darkroom, names: Sequence[str], size: Size) -> list[Round]:
    plain = requests.plain(size.jobs, size.steps)
    each = size.jobs // LORAS
    batches = [
        [with_loras(one, (name, 1.0)) for one in plain[k * each : (k + 1) * each]]
        for k, name in enumerate(names)
    ]
    mixed = [one for batch in batches for one in batch]
    rounds = []
    for number in range(size.rounds + 1):
        seconds, _ = await at_once(darkroom, plain)
        agreed, _ = await at_once(darkroom, [with_loras(one, (names[0], 1.0)) for one in plain])
        in_one, drawn = await at_once(darkroom, mixed)
        apart = 0.0
        for batch in batches:
            apart += (await at_once(darkroom, batch))[0]
        rows = tuple(step.rows for one in drawn for step in one.steps)
        if number:  # the first one warms up
            rounds.append(Round(seconds, agreed, in_one, apart, rows))
            say(f"round {number}/{size.rounds}: {seconds:.2f} s without, {in_one:.2f} with LoRAs")
    return rounds


async def at_once(
    darkroom: Darkroom, wanted: Sequence[GenerationRequest]
) -> tuple[float, list[Rendered]]:
    """Seconds until the last of `wanted`, submitted together, is there."""
    began = time.perf_counter()
    drawn = await asyncio.gather(*(render(darkroom, requests.again(one)) for one in wanted))
    return time.perf_counter() - began, drawn


def with_loras(request: GenerationRequest, *loras: tuple[str, float]) -> GenerationRequest:
    choices = tuple(LoraChoice(name=name, scale=scale) for name, scale in loras)
    return msgspec.structs.replace(request, loras=choices)


async def _differences(
    darkroom: Darkroom, catalogue: Catalogue, names: Sequence[str], size: Size, model: str
) -> Results:
    sets: list[tuple[tuple[str, float], ...]] = [((name, 1.0),) for name in names]
    sets += [tuple(zip(names[k : k + 2], SCALES, strict=True)) for k in range(LORAS - 1)]
    sets.append(())
    plain = requests.plain(len(sets), size.steps, seed=1)
    wanted = [with_loras(one, *loras) for one, loras in zip(plain, sets, strict=True)]
    _, drawn = await at_once(darkroom, wanted)
    banked, alone = [], []
    async with Baseline(model, cores()) as baseline:
        for request, ours, loras in zip(wanted, drawn, sets, strict=True):
            paths = {catalogue.lora_directory.find(name): scale for name, scale in loras}
            await baseline.adapt(paths)
            expected = await baseline.draw(validate(request, catalogue))
            banked.append(difference(ours.data, expected))
            by_itself = await render(darkroom, requests.again(request))
            alone.append(difference(by_itself.data, expected))
            off = f"{banked[-1].max_abs_diff} in a mixed batch, {alone[-1].max_abs_diff} alone"
            say(f"{[path.stem for path in paths]}: off by {off}")
    return {
        "max_abs_diff": total([*banked, *alone]).max_abs_diff,
        "differences": {"mixed": total(banked).counts(), "alone": total(alone).counts()},
    }


def summary(rounds: Sequence[Round], size: Size) -> Results:
    return {
        "mixed_throughput_ratio": round(median(r.plain / r.mixed for r in rounds), 3),
        "agreed_throughput_ratio": round(median(r.plain / r.agreed for r in rounds), 3),
        "apart_throughput_ratio": round(median(r.plain / r.apart for r in rounds), 3),
        "seconds": {
            "plain": round(median(r.plain for r in rounds), 3),
            "agreed": round(median(r.agreed for r in rounds), 3),
            "mixed": round(median(r.mixed for r in rounds), 3),
            "apart": round(median(r.apart for r in rounds), 3),
        },
        "mean_rows_per_step": round(mean_rows([n for r in rounds for n in r.rows]), 2),
        "jobs": size.jobs,
        "loras": LORAS,
        "steps": size.steps,
    }


def rows(results: Results) -> Cells:
    seconds = results["seconds"]
    return [
        ["", "seconds", "of the throughput without LoRAs"],
        ["no LoRAs", seconds["plain"], 1],
        ["one LoRA for all", seconds["agreed"], results["agreed_throughput_ratio"]],
        ["in one batch", seconds["mixed"], results["mixed_throughput_ratio"]],
        ["one batch for each", seconds["apart"], results["apart_throughput_ratio"]],
        ["max_abs_diff", "", results["max_abs_diff"]],
        *cold_results.rows(results),
    ]


if __name__ == "__main__":
    run_program("lora", __doc__ or "", measure, rows)
