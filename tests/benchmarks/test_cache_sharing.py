"""The edits of `benchmarks.cache_sharing`, and what it makes of what the denoisers say."""

import json
from collections import Counter
from dataclasses import asdict, replace

import pytest

from benchmarks.cache_sharing import AMPLE, FULL, Outcome, figures, plan, rows, summary
from benchmarks.harness.edited_scenes import token_share
from loadgen.simulator.edit_mix import zipf
from services.denoiser.mask_cache.store import StoreStatistics
from shared.models.contracts.network import FULL_FROM

TOKEN = 16
EMPTY = StoreStatistics(
    templates=0,
    bytes=0,
    bound=AMPLE,
    spilled=0,
    spilled_bytes=0,
    spilled_bound=0,
    hits=0,
    misses=0,
    recorded=0,
    refused=0,
    spills=0,
    evictions=0,
    distrusted=0,
)


def outcome(cached: int, edits: int, *stores: StoreStatistics) -> Outcome:
    said = tuple(number < cached for number in range(edits))
    return Outcome(said, tuple(asdict(store) for store in stores))


def test_the_first_thing_is_asked_for_as_often_as_the_kth_times_k() -> None:
    assert zipf(4) == [1.0, 0.5, pytest.approx(1 / 3), 0.25]


def test_every_edit_can_be_recorded_and_cached_whatever_was_recorded_before() -> None:
    orders = plan(FULL, TOKEN)
    shares = [token_share([order.edit.mask], TOKEN) for order in orders]
    assert len(orders) == FULL.edits
    assert 2 * max(shares) <= FULL_FROM


def test_few_pictures_get_most_of_the_edits_and_all_get_some() -> None:
    counts = Counter(str(order.original.scene) for order in plan(FULL, TOKEN))
    often = [count for _, count in counts.most_common()]
    assert len(counts) == FULL.templates
    assert sum(often[:4]) > FULL.edits / 2


def test_the_list_is_the_same_in_every_run() -> None:
    ours, theirs = plan(FULL, TOKEN), plan(FULL, TOKEN)
    assert [order.edit.prompt for order in ours] == [order.edit.prompt for order in theirs]


def test_what_lies_in_a_shared_store_counts_once_and_what_is_apart_twice() -> None:
    first = replace(EMPTY, templates=2, bytes=200, hits=5, misses=1, recorded=1)
    other = replace(EMPTY, templates=2, bytes=200, hits=3, misses=1, recorded=1)
    ample = figures(outcome(8, 10, first, other), outcome(6, 10, first, other))
    assert ample["shared"]["bytes"] == 200
    assert ample["apart"]["bytes"] == 400
    assert (ample["shared"]["hits"], ample["apart"]["hits"]) == (8, 8)
    assert ample["shared"]["looked_up"] == [6, 4]
    found = summary(ample, ample)
    assert found["memory_ratio"] == 2.0
    assert (found["hit_rate_shared"], found["hit_rate_apart"]) == (0.8, 0.6)
    json.dumps(found)
    assert max(len(row) for row in rows(found)) == 6


def test_what_was_spilled_counts_too() -> None:
    spilled = replace(EMPTY, templates=1, bytes=100, spilled=3, spilled_bytes=300)
    found = figures(outcome(1, 2, spilled, spilled), outcome(1, 2, spilled, spilled))
    assert (found["shared"]["bytes"], found["shared"]["templates"]) == (400, 4)
