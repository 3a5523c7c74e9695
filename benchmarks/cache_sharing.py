"""Edits of popular pictures on two denoisers that share their host's activation caches, or have
their own.

Two fleets with two denoisers each get the same list of edits with `mask_mode: cached`, of 20
pictures by Zipf's law (`edited_scenes.py`, `edits.py`), 20 edits in turn. In one fleet both
denoisers use one cache store, as those of a host do. In the other one the second denoiser has
directories of its own, as on another host: it finds nothing that the first one recorded.

`hit_rate_shared` and `hit_rate_apart`: the share of edits whose results say that they were computed
with an activation cache. `memory_ratio`: the bytes of both stores that are apart, over those of the
shared one, after all edits. `tight`: the same list when only 8 of 20 caches fit into memory (4 for
each denoiser that is apart), and there is no disk.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from benchmarks.harness.edited_scenes import Original, SceneEdit, edit, originals, token_share
from benchmarks.harness.fleet import OwnFleet, denoisers, own_fleet, render
from benchmarks.harness.flux_model import MODEL
from benchmarks.harness.program import Cells, Options, Results, run_program, say
from benchmarks.harness.second_host import REACHABLE, second_host
from loadgen.simulator.edit_mix import zipf
from shared.errors import Misconfigured
from shared.models.catalogue import Catalogue
from shared.models.contracts.network import FULL_FROM

SEED: Final = 6
"""Of the scenes: others than those of the training, and of other programs."""
DENOISERS: Final = 2
IN_FLIGHT: Final = 2
"""Edits on a fleet at a time."""
TURN: Final = 20
"""Edits that a fleet gets before the other one gets the same."""
AMPLE: Final = 4 * 1024**3
"""Bytes for activation caches: more than are recorded."""
MB: Final = 1e6
ROOM: Final = 0.5
"""Of an activation cache, beyond those that are to fit: one that is being recorded reserves a
little more than it takes."""


@dataclass(frozen=True, slots=True)
class Size:
    """`fit`: of the activation caches, those that fit into a tight memory."""

    templates: int
    edits: int
    fit: int


FULL: Final = Size(templates=20, edits=200, fit=8)
QUICK: Final = Size(templates=3, edits=12, fit=2)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    original: Original
    edit: SceneEdit
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one fleet: for each edit whether it was computed with an activation cache, and what the
    denoisers said of their cache stores at the end (`StoreStatistics`)."""

    cached: tuple[bool, ...]
    stores: tuple[Mapping[str, int], ...]


async def measure(options: Options) -> Results:
    size = QUICK if options.quick else FULL
    orders = plan(size, Catalogue.load([options.model]).default.size_multiple)
    ample = figures(*await _both(options.model, orders, AMPLE))
    if not ample["shared"]["templates"]:
        raise Misconfigured(f"none of {len(orders)} edits was recorded")
    each = ample["shared"]["bytes"] / ample["shared"]["templates"]
    nbytes = int((size.fit + ROOM) * each)
    tight = figures(*await _both(options.model, orders, nbytes))
    return summary(ample, tight) | {
        "templates": size.templates,
        "edits": size.edits,
        "template_bytes": round(each),
        "tight_bytes": nbytes,
    }


def plan(size: Size, token: int) -> list[Order]:
    """Edits of which each can be recorded, and computed with whatever cache is there, by a model
    whose tokens have `token` x `token` pixels."""
    lot = Random(SEED)
    found = originals(size.templates, SEED)

    def fits(one: SceneEdit) -> bool:
        return token_share([one.mask], token) <= FULL_FROM / 2

    chosen = lot.choices(found, zipf(size.templates), k=size.edits)
    return [Order(one, edit(one.scene, lot, fits), number) for number, one in enumerate(chosen)]


# ----------------------------------------------------------------------------------------- fleets


async def _both(model: str, orders: Sequence[Order], nbytes: int) -> tuple[Outcome, Outcome]:
    """Shared, and apart: `nbytes` for activation caches in either case. They take turns."""
    async with (
        own_fleet(model, DENOISERS, environment=_environment(nbytes)) as one,
        own_fleet(model, 1, environment=_environment(nbytes // 2) | REACHABLE) as other,
        second_host(other),
    ):
        shared, apart = Side(one), Side(other)
        for start in range(0, len(orders), TURN):
            for side in (shared, apart):
                await side.draw(orders[start : start + TURN])
            say(
                f"{len(shared.cached)} of {len(orders)} edits, with an activation cache: "
                f"{sum(shared.cached)} where it is shared, {sum(apart.cached)} apart"
            )
        return await shared.outcome(), await apart.outcome()


def _environment(nbytes: int) -> dict[str, str]:
    return {
        "DARKROOM_CONTROLS": "",
        "DARKROOM_THREADS": "1",
        "DARKROOM_TEMPLATE_BYTES": str(nbytes),
        "DARKROOM_TEMPLATE_DISK_BYTES": "0",
    }


class Side:
    """One fleet, and for each edit so far whether it was computed with an activation cache."""

    def __init__(self, fleet: OwnFleet) -> None:
        self.cached: list[bool] = []
        self._fleet = fleet
        self._room = asyncio.Semaphore(IN_FLIGHT)

    async def draw(self, orders: Sequence[Order]) -> None:
        self.cached += await asyncio.gather(*map(self._drawn, orders))

    async def outcome(self) -> Outcome:
        """Raises `Misconfigured` unless both denoisers answer."""
        stores, before = await self._stores(), None
        while stores != before:  # something is still being written
            stores, before = await self._stores(), stores
        if len(stores) != DENOISERS:
            raise Misconfigured(f"{len(stores)} denoisers of {DENOISERS} gave their statistics")
        return Outcome(tuple(self.cached), stores)

    async def _stores(self) -> tuple[Mapping[str, int], ...]:
        """In an order of their own, for denoisers answer in any."""
        found = [one["templates"] for one in await denoisers(self._fleet.fleet.bus)]
        return tuple(sorted(found, key=lambda store: sorted(store.items())))

    async def _drawn(self, order: Order) -> bool:
        async with self._room:
            wanted = order.original.request(order.edit, order.seed, "cached")
            rendered = await render(self._fleet.darkroom, wanted)
        return bool(rendered.done.approximations)


# --------------------------------------------------------------------------------------- figures


def figures(shared: Outcome, apart: Outcome) -> dict[str, Results]:
    """Of the two fleets. Both denoisers that share a store say the same of what lies in it."""
    return {
        "shared": _figures(shared, shared.stores[:1]),
        "apart": _figures(apart, apart.stores),
    }


def _figures(outcome: Outcome, stores: Sequence[Mapping[str, int]]) -> Results:
    counts = {
        name: sum(store[name] for store in outcome.stores)
        for name in ("hits", "misses", "recorded", "evictions")
    }
    return {
        "hit_rate": round(sum(outcome.cached) / len(outcome.cached), 4),
        "bytes": sum(store["bytes"] + store["spilled_bytes"] for store in stores),
        "templates": sum(store["templates"] + store["spilled"] for store in stores),
        **counts,
        "looked_up": [store["hits"] + store["misses"] for store in outcome.stores],
    }


def summary(ample: Mapping[str, Results], tight: Mapping[str, Results]) -> Results:
    """`looked_up`: caches by each denoiser, so edits that it took."""
    return {
        "memory_ratio": round(ample["apart"]["bytes"] / ample["shared"]["bytes"], 3),
        "hit_rate_shared": ample["shared"]["hit_rate"],
        "hit_rate_apart": ample["apart"]["hit_rate"],
        "tight_hit_rate_shared": tight["shared"]["hit_rate"],
        "tight_hit_rate_apart": tight["apart"]["hit_rate"],
        "ample": dict(ample),
        "tight": dict(tight),
    }


def rows(report: Results) -> Cells:
    table: Cells = [["room for caches", "hit rate", "templates", "MB", "recorded", "evicted"]]
    for room in ("ample", "tight"):
        for way, found in report[room].items():
            hits, size = found["hit_rate"], f"{found['bytes'] / MB:.1f}"
            counts = [found["recorded"], found["evictions"]]
            table.append([f"{room}, {way}", hits, found["templates"], size, *counts])
    return [*table, ["bytes apart, of shared", report["memory_ratio"]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(model=MODEL)


if __name__ == "__main__":
    run_program("cache_sharing", __doc__ or "", measure, rows, add_arguments)
