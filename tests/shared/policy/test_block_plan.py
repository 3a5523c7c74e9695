from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plan.rules import (
    different_blocks,
    equal_blocks,
    flux_blocks,
    greedy,
    least_makespan,
)
from shared.policy.block_plan import runs as block_runs
from shared.policy.block_plan import search
from shared.policy.block_plan.bounds import bounds
from shared.policy.block_plan.equal import blocks_in_full
from shared.policy.block_plan.runs import Block, Option
from shared.policy.block_plan.search import best_plan, timeline
from shared.policy.block_plan.segments import segments_of

times = st.integers(0, 12).map(float)
options = st.builds(Option, times, times)
block_lists = st.lists(st.lists(options, min_size=1, max_size=4).map(tuple), max_size=6)
runs = st.lists(
    st.tuples(st.lists(options, min_size=1, max_size=3).map(tuple), st.integers(1, 4)), max_size=3
).map(lambda runs: [block for block, length in runs for _ in range(length)][:9])
heads = st.integers(0, 20).map(float)


def test_a_thousand_plans_of_twelve_blocks_equal_the_best_there_is() -> None:
    lot = Random(0)
    for number in range(1000):
        blocks = equal_blocks(12, lot) if number % 2 else _two_ways(different_blocks(12, lot))
        plan = best_plan(blocks)
        assert plan.makespan == pytest.approx(least_makespan(blocks), rel=1e-12)
        assert plan.exact


def test_of_twelve_blocks_with_three_ways_each_the_plan_equals_the_best_there_is() -> None:
    lot = Random(1)
    for _ in range(20):
        blocks = different_blocks(12, lot)
        assert best_plan(blocks).makespan == pytest.approx(least_makespan(blocks), rel=1e-12)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(block_lists, heads)
def test_whatever_the_times_no_plan_is_better(blocks: list[Block], head: float) -> None:
    plan = best_plan(blocks, head)
    assert plan.makespan == least_makespan(blocks, head)
    assert plan.exact


@settings(deadline=None, derandomize=True, max_examples=60)
@given(runs, heads)
def test_blocks_that_are_alike_are_planned_as_well_as_others(
    blocks: list[Block], head: float
) -> None:
    assert best_plan(blocks, head).makespan == least_makespan(blocks, head)


@settings(deadline=None, derandomize=True)
@given(runs, heads)
def test_a_plan_is_no_worse_than_the_rules_and_with_more_head_no_worse_than_with_less(
    blocks: list[Block], head: float
) -> None:
    plan = best_plan(blocks, head)
    for choices in (greedy(blocks, head), [0] * len(blocks), [len(b) - 1 for b in blocks]):
        assert plan.makespan <= timeline(blocks, choices, head).computed
    assert best_plan(blocks, head + 1.0).makespan <= plan.makespan
    dearer = [tuple(Option(o.load + 1.0, o.compute) for o in block) for block in blocks]
    assert best_plan(dearer, head).makespan >= plan.makespan


def test_a_plan_tells_its_own_makespan() -> None:
    blocks = flux_blocks(Random(3))
    plan = best_plan(blocks, head=2.0)
    assert plan.makespan == timeline(blocks, plan.choices, head=2.0).computed
    assert plan.exact


def test_a_head_start_is_used() -> None:
    blocks = [(Option(0.0, 4.0), Option(3.0, 1.0))]
    assert best_plan(blocks).makespan == 4.0
    plan = best_plan(blocks, head=2.0)
    assert (plan.choices, plan.makespan) == ((1,), 2.0)


def test_where_nothing_has_to_be_loaded_the_cheapest_computation_is_taken() -> None:
    blocks = [(Option(0.0, 3.0), Option(0.0, 1.0), Option(0.0, 2.0))] * 57
    assert best_plan(blocks).choices == (1,) * 57


def test_loads_that_cannot_pay_are_not_made() -> None:
    plan = best_plan([(Option(0.0, 1.0), Option(100.0, 0.5))] * 57)
    assert plan.choices == (0,) * 57


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 7), times, times, times, heads)
def test_of_equal_blocks_no_plan_of_all_there_are_ends_earlier_nor_as_early_with_fewer_loads(
    depth: int, whole: float, part: float, load: float, head: float
) -> None:
    part = min(part, whole)
    blocks = [(Option(load, part), Option(0.0, whole))] * depth
    full = blocks_in_full(depth, whole, part, load, head)
    ends = {
        choices: timeline(blocks, choices, head).computed
        for choices in product((0, 1), repeat=depth)
    }
    least = min(ends.values())
    assert ends[(1,) * full + (0,) * (depth - full)] == least
    assert full == max(sum(choices) for choices, end in ends.items() if end == least)


@pytest.mark.parametrize("depth", [12, 57])
def test_of_as_many_equal_blocks_as_models_have_the_search_finds_no_better_plan(
    depth: int,
) -> None:
    lot = Random(5)
    for _ in range(40):
        whole, load, head = lot.uniform(0.5, 2.0), lot.uniform(0.0, 3.0), lot.choice([0.0, 4.0])
        part = whole * lot.random()
        blocks = [(Option(load, part), Option(0.0, whole))] * depth
        full = blocks_in_full(depth, whole, part, load, head)
        ours = timeline(blocks, (1,) * full + (0,) * (depth - full), head).computed
        assert ours == pytest.approx(best_plan(blocks, head).makespan, rel=1e-12)


def test_without_blocks_there_is_nothing_to_plan() -> None:
    assert best_plan([]).makespan == 0.0
    assert best_plan([]).choices == ()


def test_a_negative_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head: -1\.0, allowed: at least 0"):
        best_plan([], head=-1.0)


def test_what_is_kept_is_bounded_and_the_plan_says_what_that_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = different_blocks(12, Random(5))
    best = least_makespan(blocks)
    monkeypatch.setattr(search, "FEW", 2)
    monkeypatch.setattr(search, "FIRST_FRONT", 2)
    found = best_plan(blocks)
    assert found.exact  # by the second search
    assert found.makespan == pytest.approx(best, rel=1e-12)
    monkeypatch.setattr(search, "MAX_FRONT", 2)
    bounded = best_plan(blocks)
    assert not bounded.exact
    assert best <= bounded.makespan * (1 + 1e-12)
    assert bounded.makespan <= 2.0 * best


@pytest.mark.parametrize("gap", [1e-9, 1e-3, 0.3])
def test_however_low_the_first_limit_the_plan_is_the_best_one(
    gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "GAP", gap)
    monkeypatch.setattr(search, "FEW", 1)
    for blocks in (different_blocks(10, Random(9)), equal_blocks(12, Random(10))):
        plan = best_plan(blocks, head=0.5)
        assert plan.exact
        assert plan.makespan == pytest.approx(least_makespan(blocks, 0.5), rel=1e-12)


def test_where_the_bound_is_nothing_the_best_plan_is_found_all_the_same() -> None:
    blocks = [(Option(0.0, 5.0 + i), Option(5.0 + i, 0.0)) for i in range(9)]
    for missing in (1e-5, 1e-2, 1.0):
        head = sum(5.0 + i for i in range(9)) - missing
        plan = best_plan(blocks, head)
        assert plan.exact
        assert plan.makespan == pytest.approx(least_makespan(blocks, head))


def test_no_bound_is_above_the_best_plan_that_has_the_way_it_is_of() -> None:
    lot = Random(11)
    for head in (0.0, 1.5):
        blocks = different_blocks(8, lot)
        segments = segments_of(blocks)
        least = bounds(segments.ways, head).least
        found = np.full(least.shape, np.inf)
        for first, second in product(range(least.shape[1]), repeat=2):
            choices = segments.choices((first, second))
            makespan = timeline(blocks, choices, head).computed
            found[0, first] = min(found[0, first], makespan)
            found[1, second] = min(found[1, second], makespan)
        assert (least <= found * (1 + 1e-6)).all()
        assert least.min() >= 0.8 * found.min()


def test_segments_of_equal_and_of_different_blocks_tell_when_they_end() -> None:
    lot = Random(12)
    blocks = [*different_blocks(5, lot), *equal_blocks(9, lot), *different_blocks(3, lot)]
    segments = segments_of(blocks)
    for _ in range(100):
        ways = [lot.choice(np.flatnonzero(row < 1e9).tolist()) for row in segments.ways[1]]
        loaded, computed = -1.0, 0.0
        for number, way in enumerate(ways):
            s, l, t = segments.ways[:, number, way]  # noqa: E741
            loaded, computed = loaded + l, max(computed + s, loaded + t)
        found = timeline(blocks, segments.choices(ways), head=1.0)
        assert found == pytest.approx((loaded, computed))


def test_long_runs_of_equal_blocks_are_cut_and_planned_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = flux_blocks(Random(6))
    whole = best_plan(blocks)
    monkeypatch.setattr(block_runs, "MAX_COUNTS", 40)
    assert best_plan(blocks).makespan == pytest.approx(whole.makespan)


def _two_ways(blocks: list[Block]) -> list[Block]:
    return [block[:2] for block in blocks]
