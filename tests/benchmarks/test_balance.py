"""The simulated fleet, and the edits that it is given."""

from random import Random
from statistics import mean

import pytest

from benchmarks.balance import DENOISERS, LIMITS, POLICIES, full_rate, imbalance, summary
from benchmarks.harness.numbers import percentile
from loadgen.simulator.denoisers import COST, STEPS, RoundRobin, added_seconds, row_work
from loadgen.simulator.edit_mix import MIXES, Edit, arrivals

KNOWN = {
    "face swap": {"mean": 0.112, "p50": 0.095, "p90": 0.208, "p95": 0.245},
    "detail fixing": {"mean": 0.029, "p50": 0.023, "p95": 0.065},
    "inpainting": {"mean": 0.354, "p50": 0.221, "p90": 0.873, "p95": 0.916},
}


@pytest.mark.parametrize("mix", KNOWN)
def test_masks_are_drawn_as_they_are_known_to_be(mix: str) -> None:
    lot = Random(1)
    masks = [MIXES[mix](lot) for _ in range(20_000)]
    for name, known in KNOWN[mix].items():
        found = mean(masks) if name == "mean" else percentile(masks, int(name[1:]))
        assert found == pytest.approx(known, rel=0.06)
    assert all(0.0 < mask <= 1.0 for mask in masks)


def test_arrivals_come_at_their_rate() -> None:
    edits = arrivals([0.1] * 5000, 4.0, Random(2))
    assert edits[-1].at == pytest.approx(5000 / 4.0, rel=0.05)


def few_edits(mix: str = "mixed") -> list[Edit]:
    lot = Random(3)
    masks = [MIXES[mix](lot) for _ in range(60)]
    return arrivals(masks, 0.8 * full_rate(masks), lot)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_edit_is_finished_and_every_run_is_the_same(policy: str) -> None:
    edits = few_edits()
    outcome = POLICIES[policy](edits)
    assert len(outcome.latencies) == len(edits)
    assert sum(outcome.work) == pytest.approx(sum(map(added_seconds, edits)))
    assert POLICIES[policy](edits) == outcome


def test_who_has_less_to_do_gets_more_edits_but_not_more_work() -> None:
    """A large edit, then small ones one after another, on what would be two denoisers in turn."""
    edits = [Edit(0.001 * n, 1.0 if n % DENOISERS == 0 else 0.02) for n in range(3 * DENOISERS)]
    ours, turns = POLICIES["ours"](edits), POLICIES["round robin"](edits)
    assert imbalance(ours.work) < imbalance(turns.work)
    assert max(ours.latencies) < max(turns.latencies)


def test_an_edit_alone_takes_as_long_as_its_steps() -> None:
    edit = Edit(0.0, 0.2)
    (latency,) = RoundRobin([edit], 1, LIMITS).run().latencies
    assert latency == pytest.approx(STEPS * COST.predict(row_work(edit)))


def test_a_masked_step_takes_what_was_published() -> None:
    full = COST.predict(row_work(Edit(0.0, 1.0)))
    assert full == pytest.approx(0.243, rel=0.01)
    assert full / COST.predict(row_work(Edit(0.0, 0.2))) == pytest.approx(1.9, rel=0.02)


def test_imbalance_is_how_far_the_busiest_is_above_the_mean() -> None:
    assert imbalance([1.0, 1.0, 4.0]) == pytest.approx(1.0)
    assert imbalance([2.0, 2.0]) == 0.0
    assert summary(POLICIES["ours"](few_edits()))["imbalance"] > 0.0
