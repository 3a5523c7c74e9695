"""Edits of well-known pictures: computed where their masks show them, in full, and by diffusers.

Edits with production's mix of masks (`edits.py`) of 20 pictures, of which some are edited far more
often than others (Zipf). A fleet with `mask_mode: cached`, the same fleet with `exact`, and
diffusers' inpaint pipeline, edit by edit and with those that wait drawn in one call, all get the
same edits; with one denoiser (or pipeline) that has all cores, and with two that have one each. A
model of FLUX's shape with random weights (`flux_model.py`), 512x512 pixels, so that the arithmetic
of a step dominates; `--own` measures `--model` itself.

Saturated: all edits come at once; edits per second until the last one is there. Then edits come by
a Poisson process at the rate that the better baseline sustained when it was saturated: mean and p95
of the seconds from the moment an edit should come until its picture is there. Before, each picture
was edited twice: in full, while its activation cache was recorded, and once more, which mends the
cache; what came of both is reported as well. `throughput_ratio` and `mean_latency_ratio` are ours
cached against the better baseline, the smaller ones of one and of two.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Final

import msgspec

from benchmarks.editing.load import Load, all_at_once, arriving
from benchmarks.editing.orders import Format, first_edits, poisson, requests_of, template_files
from benchmarks.editing.sides import BASELINES, SIDES, TRIED_STEPS, Sides, open_sides
from benchmarks.harness.flux_model import MODEL, Shape, flux_model
from benchmarks.harness.numbers import percentile
from benchmarks.harness.pixels import difference
from benchmarks.harness.program import Cells, Options, Results, cores, run_program, say
from shared.errors import Misconfigured
from shared.messages import GenerationRequest
from shared.models.cards import ModelCard
from shared.models.catalogue import Catalogue

FIRST_SEEDS: Final = {"recording": 1, "mending": 3}
"""Of the edits with which activation caches are recorded, and mended;"""
POISSON_SEED: Final = 2
"""of those that arrive one by one, in the mean nearly as often as they should;"""
BACKLOG_SEED: Final = 100
"""of those that come at once in the first round."""


@dataclass(frozen=True, slots=True)
class Size:
    """`backlog` edits at once, of which those who compute all of each get `backlog_in_full`, for
    their work does not depend on the masks; `arrivals` one by one."""

    shape: Shape
    pixels: int
    steps: int
    templates: int
    backlog: int
    backlog_in_full: int
    rounds: int
    arrivals: int


FULL: Final = Size(
    Shape(8, 64, 2, 4), 512, 8, 20, backlog=16, backlog_in_full=8, rounds=2, arrivals=28
)
QUICK: Final = Size(
    Shape(2, 16, 1, 1), 128, 2, 3, backlog=4, backlog_in_full=4, rounds=1, arrivals=4
)
DENOISERS: Final = (1, 2)


@dataclass(slots=True)
class Found:
    """With one number of denoisers; by side, `backlogs` of each round. `firsts`: the first two
    edits of each template, cached. `rate`: edits a second that arrived, as it was meant."""

    firsts: dict[str, Load]
    max_abs_diff: int
    batch: int
    layouts: tuple[str, ...]
    backlogs: dict[str, list[Load]] = field(default_factory=lambda: {side: [] for side in SIDES})
    rate: float = 0.0
    arrived: dict[str, Load] = field(default_factory=dict)


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="darkroom-benchmark-") as here:
        model = options.model
        if not options.own.own:
            model = str(flux_model(Path(here) / "flux", model, size.shape, size.pixels))
        card = _card(model)
        steps = card.default_steps if options.own.own and not options.quick else size.steps
        form = Format(card.default_width // card.size_multiple, card.size_multiple, steps)
        found = {}
        for denoisers in DENOISERS:
            say(f"{denoisers} of each: starting")
            found[str(denoisers)] = await _with(model, denoisers, form, size)
    return summary(found) | {
        "image_tokens": form.side**2,
        "steps": form.steps,
        "templates": size.templates,
        "backlog": size.backlog,
        "backlog_in_full": size.backlog_in_full,
        "rounds": size.rounds,
        "arrivals": size.arrivals,
    }


def _card(model: str) -> ModelCard:
    card = Catalogue.load([model]).default
    if not card.masks:
        raise Misconfigured(f"--model {model!r}: a {card.pipeline} computes whole images only")
    return card


async def _with(model: str, denoisers: int, form: Format, size: Size) -> Found:
    files = template_files(size.templates, form.pixels)
    firsts = {
        name: requests_of(first_edits(size.templates, seed), files, form)
        for name, seed in FIRST_SEEDS.items()
    }
    threads = max(1, cores() // denoisers)
    async with open_sides(model, denoisers, threads, firsts["recording"][0]) as sides:
        found = await _recorded(sides, firsts, size)
        for number in range(size.rounds):
            orders = poisson(size.backlog, size.templates, BACKLOG_SEED + number)
            await _saturated(found, sides, requests_of(orders, files, form), size)
        rates = [median(load.per_second for load in found.backlogs[name]) for name in BASELINES]
        found.rate = max(rates)
        orders = poisson(size.arrivals, size.templates, POISSON_SEED)
        due = [order.at / found.rate for order in orders]
        wanted = requests_of(orders, files, form)
        for name in SIDES:
            load = found.arrived[name] = await arriving(sides.by_name[name], wanted, due)
            say(f"{name}: {fmean(load.latencies):.2f} s at {found.rate:.3f} edits/s")
    return found


async def _recorded(
    sides: Sides, firsts: Mapping[str, Sequence[GenerationRequest]], size: Size
) -> Found:
    """All sides have edited something, and all activation caches been recorded that can be."""
    wanted = firsts["recording"]
    short = [msgspec.structs.replace(request, steps=TRIED_STEPS) for request in wanted]
    await all_at_once(sides.by_name["exact"], short[: size.backlog_in_full])
    pair = [(await sides.by_name[name].edit(wanted[0])).data for name in ("exact", "serial")]
    found = Found({}, difference(*pair).max_abs_diff, sides.batch, sides.layouts)
    for name, requests in firsts.items():
        load = found.firsts[name] = await all_at_once(sides.by_name["cached"], requests)
        say(f"{name} templates: {load.per_second:.3f} edits/s")
    return found


async def _saturated(
    found: Found, sides: Sides, wanted: Sequence[GenerationRequest], size: Size
) -> None:
    """One round."""
    number = len(found.backlogs["cached"])
    for name in SIDES if number % 2 == 0 else SIDES[::-1]:
        count = size.backlog if name == "cached" else size.backlog_in_full
        load = await all_at_once(sides.by_name[name], wanted[:count])
        found.backlogs[name].append(load)
        say(f"round {number + 1}/{size.rounds}, {name}: {load.per_second:.3f} edits/s")


# ---------------------------------------------------------------------------------------- figures


def summary(found: Mapping[str, Found]) -> Results:
    """`found`: by the number of denoisers."""
    results = {denoisers: figures(one) for denoisers, one in found.items()}
    return {
        "throughput_ratio": min(one["throughput_ratio"] for one in results.values()),
        "mean_latency_ratio": min(one["mean_latency_ratio"] for one in results.values()),
        "denoisers": results,
    }


def figures(found: Found) -> Results:
    """Of one number of denoisers. `throughput_ratio`: the median of those within a round."""
    each = {name: [load.per_second for load in found.backlogs[name]] for name in SIDES}
    baselines = map(max, *(each[name] for name in BASELINES))
    ratios = [ours / theirs for ours, theirs in zip(each["cached"], baselines, strict=True)]
    means = {name: fmean(found.arrived[name].latencies) for name in SIDES}
    best = min(means[name] for name in BASELINES)
    return {
        "throughput_ratio": round(median(ratios), 3),
        "throughput_ratios": [round(ratio, 3) for ratio in ratios],
        "mean_latency_ratio": round(best / means["cached"], 3),
        "rate": round(found.rate, 4),
        "firsts": {
            name: {
                "edits_per_second": round(load.per_second, 4),
                "computed_share": round(fmean(load.shares), 3),
            }
            for name, load in found.firsts.items()
        },
        "max_abs_diff": found.max_abs_diff,
        "largest_batch": found.batch,
        "layouts": list(found.layouts),
        "sides": {name: _of_side(found, name) for name in SIDES},
    }


def _of_side(found: Found, name: str) -> Results:
    arrived, backlogs = found.arrived[name], found.backlogs[name]
    shares = [share for load in (*backlogs, arrived) for share in load.shares]
    return {
        "edits_per_second": round(median(load.per_second for load in backlogs), 4),
        "mean_seconds": round(fmean(arrived.latencies), 3),
        "p95_seconds": round(percentile(arrived.latencies, 95), 3),
        "computed_share": round(fmean(shares), 3),
        "with_template": sum(share < 1.0 for share in shares),
        "edits": len(shares),
    }


def rows(report: Results) -> Cells:
    table: Cells = [["", "edits/s", "mean s", "p95 s", "share of tokens", "with a template"]]
    for denoisers, one in report["denoisers"].items():
        for name, side in one["sides"].items():
            keys = ("edits_per_second", "mean_seconds", "p95_seconds", "computed_share")
            cached = f"{side['with_template']} of {side['edits']}"
            table.append([f"{denoisers} x {name}", *(side[key] for key in keys), cached])
        for name, first in one["firsts"].items():
            line = [first["edits_per_second"], "", "", first["computed_share"]]
            table.append([f"{denoisers} x cached, {name}", *line])
        ratios = [one["throughput_ratio"], one["mean_latency_ratio"]]
        table.append([f"{denoisers} x: ours, better than", *ratios])
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(model=MODEL)
    parser.add_argument("--own", action="store_true", help="--model itself, at its own size")


if __name__ == "__main__":
    run_program("editing", __doc__ or "", measure, rows, add_arguments)
