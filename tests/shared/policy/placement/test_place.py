"""Placement: every small fleet against brute force, and what holds of fleets of any size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shared.policy.placement import devices, lateness
from shared.policy.placement.lateness import lost_share
from shared.policy.placement.place import USUAL, place
from shared.policy.placement.state import Costs, Demand, Model, Move, moved
from shared.policy.release.jobs import Component
from tests.shared.policy.placement.fleets import (
    ALL_KINDS,
    GB,
    PIXELS,
    TEXT,
    A,
    B,
    C,
    asked,
    faults,
    late,
    model,
    placements,
    process,
    replicas,
    scene,
    settled,
)

NO_MARGIN = Costs(margin=0.0, payback_seconds=1e9)


def test_what_is_wanted_is_loaded_where_nothing_is() -> None:
    [move] = place([model(A)], [process("p")], {A: asked(0.1)})
    assert move == Move("p", loads=(A,))


def test_what_nobody_asked_for_lately_stays_until_its_place_is_wanted() -> None:
    both = [model(A), model(B)]
    held = [process("p", [A])]
    assert place(both, held, {}) == ()
    assert place(both, held, {A: asked(0.0, idle=10.0)}) == ()
    assert place(both, held, {B: asked(0.5)}) == (Move("p", (B,), (A,)),)


def test_what_nobody_asked_for_in_a_long_time_leaves_and_comes_back_on_demand() -> None:
    one, cold = [model(A)], asked(0.0, idle=USUAL.cold_seconds)
    assert place(one, [process("p", [A])], {A: cold}) == (Move("p", unloads=(A,)),)
    assert place(one, [process("p")], {A: cold}) == ()
    assert place(one, [process("p")], {A: asked(0.0, backlog=1.0)}) == (Move("p", (A,)),)


def test_one_replica_is_shared_by_all_who_ask_for_the_component() -> None:
    """Demand has no workflows: two that use one component are one queue."""
    end, _ = settled([model(A)], [process("p"), process("q")], {A: asked(0.4)})
    assert replicas(end, A) == 2
    end, _ = settled(
        [model(A), model(B)], [process("p"), process("q")], {A: asked(0.4), B: asked(0.4)}
    )
    assert (replicas(end, A), replicas(end, B)) == (1, 1)


def test_a_hot_component_gets_more_replicas_than_a_cool_one() -> None:
    fleet = [process(f"p{k}") for k in range(8)]
    end, _ = settled([model(A), model(B)], fleet, {A: asked(5.0), B: asked(0.5)})
    assert replicas(end, A) + replicas(end, B) == 8
    assert replicas(end, A) >= 6
    assert replicas(end, B) >= 1


def test_when_the_heat_moves_replicas_follow() -> None:
    fleet = [process(f"p{k}") for k in range(8)]
    both = [model(A), model(B)]
    before, _ = settled(both, fleet, {A: asked(5.0), B: asked(0.5)})
    after, _ = settled(both, before, {A: asked(0.5), B: asked(5.0)})
    assert replicas(after, B) >= 6
    assert replicas(after, A) >= 1


def test_a_backlog_and_a_rising_rate_bring_replicas_before_the_rate_does() -> None:
    fleet = [process("p", [A]), process("q", [B])]
    both = [model(A), model(B)]
    calm = {A: asked(0.5), B: asked(0.02)}
    assert place(both, fleet, calm) == ()
    waiting = {A: asked(0.5, backlog=60.0), B: asked(0.0)}
    assert place(both, fleet, waiting) == (Move("q", (A,), (B,)),)
    rising = {A: asked(0.5, trend=1.0), B: asked(0.0)}
    assert place(both, fleet, rising) == (Move("q", (A,), (B,)),)


def test_jobs_with_little_time_get_the_free_device() -> None:
    """As much is asked of both; those of one component may wait for long."""
    fleet = [process("p", [A]), process("q", [B]), process("r")]
    patient, urgent = asked(0.8, slack=100.0), asked(0.8, slack=0.5)
    assert place([model(A), model(B)], fleet, {A: patient, B: urgent}) == (Move("r", (B,)),)
    assert place([model(A), model(B)], fleet, {A: urgent, B: patient}) == (Move("r", (A,)),)


def test_a_load_that_takes_longer_than_it_pays_is_not_begun() -> None:
    fleet = [process("p", [A]), process("q", [A])]
    demand = {A: asked(1.2), B: asked(0.3)}
    assert place([model(A), model(B)], fleet, demand)
    slow = model(B, seconds=2.0 * USUAL.payback_seconds)
    assert place([model(A), slow], fleet, demand) == ()


def test_what_leaves_is_what_is_wanted_least_for_its_bytes() -> None:
    full = [process("p", [A, B, C], 30 * GB)]
    new: Component = ("denoise", "d")
    models = [model(name) for name in (A, B, C, new)]
    demand = {A: asked(0.2), B: asked(0.0), C: asked(0.1), new: asked(0.2)}
    end, _ = settled(models, full, demand)
    assert replicas(end, new) == 1
    assert replicas(end, B) == 0


def test_denoising_networks_do_not_share_a_device_that_need_not() -> None:
    roomy = [process("p", memory=100 * GB), process("q", memory=100 * GB)]
    end, _ = settled([model(A), model(B)], roomy, {A: asked(0.5), B: asked(0.5)})
    assert sorted(map(sorted, (one.holds for one in end))) == [[A], [B]]


def test_what_computes_beside_denoising_does_so_on_few_devices() -> None:
    roomy = [process(f"p{k}", memory=100 * GB) for k in range(8)]
    demand = {A: asked(4.0), TEXT: asked(4.0, 0.02), PIXELS: asked(4.0, 0.1)}
    models = [model(A), model(TEXT, 5 * GB), model(PIXELS, GB)]
    end, _ = settled(models, roomy, demand)
    assert replicas(end, TEXT) >= 1
    assert replicas(end, PIXELS) >= 1
    both = [one for one in end if A in one.holds and one.holds & {TEXT, PIXELS}]
    assert len(both) <= 2


def test_what_is_asked_within_steps_goes_where_these_are_taken() -> None:
    hint: Component = ("hint", "canny")
    steered = Model(hint, GB, 0.1, beside=(A,))
    roomy = [process(f"p{k}", memory=30 * GB) for k in range(3)]
    demand = {A: asked(1.5), B: asked(0.5), hint: asked(0.3, 0.2)}
    end, _ = settled([model(A), model(B), steered], roomy, demand)
    assert [hint in one.holds for one in end] == [A in one.holds for one in end]


def test_a_process_is_only_given_what_it_can_run() -> None:
    text = replace(process("e"), kinds=frozenset({"encode"}), device="host")
    steps = replace(process("d"), kinds=frozenset({"denoise"}), device="host")
    end, _ = settled([model(A), model(TEXT)], [text, steps], {A: asked(0.2), TEXT: asked(0.2)})
    assert [one.holds for one in end] == [{TEXT}, {A}]
    assert place([model(A)], [text], {A: asked(1.0)}) == ()
    assert place([model(A, 11 * GB)], [steps], {A: asked(1.0)}) == ()


@pytest.mark.parametrize("number", range(60))
def test_small_fleets_are_placed_nearly_as_well_as_they_can_be(number: int) -> None:
    """Against every placement of three components on three processes, where loading costs nothing
    and any gain counts; and with the usual costs nothing is much worse than that."""
    models, start, demand = scene(number)
    best = min(late(models, each, demand) for each in placements(models, start))
    total = sum(one.rate for one in demand.values())
    free, _ = settled(models, start, demand, NO_MARGIN)
    assert late(models, free, demand) <= best + 0.02 * total
    usual, _ = settled(models, start, demand)
    assert late(models, usual, demand) <= best + 0.15 * total


@pytest.mark.parametrize("number", range(60))
def test_no_decision_in_a_small_fleet_is_wrong(number: int) -> None:
    assert faults(place, number) == []


def test_a_mutant_that_unloads_what_is_wanted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cheap to miss stays, and what is wanted leaves for it."""

    def backwards(
        name: Component, models: Mapping[Component, Model], known: lateness.Lateness
    ) -> float:
        return -known.rate(name)

    def greedy(
        models: Sequence[Model], processes: Sequence[object], *asked: object
    ) -> tuple[Move, ...]:
        moves: tuple[Move, ...] = place(models, processes, *asked)  # type: ignore[arg-type]
        return tuple(replace(move, unloads=(*move.unloads, A)) for move in moves)

    assert any(faults(greedy, number) for number in range(20))
    with monkeypatch.context() as mutant:
        mutant.setattr(devices, "_keeping", backwards)
        with pytest.raises(AssertionError):
            test_what_leaves_is_what_is_wanted_least_for_its_bytes()


def fleets() -> st.SearchStrategy[tuple[list[Model], int, dict[Component, Demand], int]]:
    names = [A, B, C, ("denoise", "d"), TEXT, PIXELS]
    each = st.tuples(
        st.sampled_from((2, 5, 9, 20)),
        st.floats(0.05, 5.0),
        st.floats(0.0, 8.0),
        st.sampled_from((0.02, 0.3, 2.0, 7.0)),
    )
    return st.tuples(
        st.lists(each, min_size=2, max_size=6), st.integers(1, 24), st.sampled_from((10, 24, 80))
    ).map(
        lambda drawn: (
            [model(name, one[0] * GB, one[1]) for name, one in zip(names, drawn[0], strict=False)],
            drawn[1],
            {name: asked(one[2], one[3]) for name, one in zip(names, drawn[0], strict=False)},
            drawn[2] * GB,
        )
    )


@settings(max_examples=30, phases=(Phase.explicit, Phase.generate), deadline=None)
@given(fleets())
def test_under_constant_load_nothing_moves_back_and_forth(
    drawn: tuple[list[Model], int, dict[Component, Demand], int],
) -> None:
    """No component comes to a process that it has left, nor leaves one that it came to, and at last
    nothing moves."""
    models, count, demand, memory = drawn
    now = [process(f"p{k}", memory=memory) for k in range(count)]
    came, left = set[tuple[str, Component]](), set[tuple[str, Component]]()
    for _ in range(60):
        moves = place(models, now, demand)
        if not moves:
            break
        loads = {(move.process, name) for move in moves for name in move.loads}
        unloads = {(move.process, name) for move in moves for name in move.unloads}
        assert not loads & left
        came |= loads
        left |= unloads
        before, now = late(models, now, demand), moved(now, moves)
        assert late(models, now, demand) < before
    else:
        pytest.fail("it never rests")


def test_a_load_that_fluctuates_moves_little() -> None:
    """Rates that are measured are off by a fifth, each second in another way."""
    lot = Random(7)
    models = [model(name) for name in (A, B, C)]
    fleet = [process(f"p{k}") for k in range(12)]
    means = {A: 5.0, B: 2.0, C: 1.0}
    now, _ = settled(models, fleet, {name: asked(rate) for name, rate in means.items()})
    moves = 0
    for _ in range(120):
        demand = {name: asked(rate * lot.uniform(0.8, 1.2)) for name, rate in means.items()}
        found = place(models, now, demand)
        moves += len(found)
        now = moved(now, found)
    assert moves <= 12


def test_late_jobs_are_those_of_a_queue_with_impatient_customers() -> None:
    assert lost_share(0.0, 1.0) == 0.0
    assert lost_share(1.0, 4.0) == pytest.approx(1.0 / 6.0)
    assert lost_share(1.0 + 1e-7, 4.0) == pytest.approx(1.0 / 6.0, rel=1e-4)
    assert lost_share(4.0, 1e6) == pytest.approx(0.75)
    assert lost_share(0.5, 1e6) == pytest.approx(0.0)
    shares = [lost_share(use / 20, 3.0) for use in range(1, 80)]
    assert shares == sorted(shares)
    more_patient = partial(lost_share, 0.9)
    assert more_patient(2.0) > more_patient(3.0)


def test_all_kinds_are_known_here() -> None:
    assert {"denoise", "encode", "decode", "hint"} == ALL_KINDS
