"""A profile of what was seen of a fleet."""

import pytest

from loadgen.simulator.profiles.measured import (
    Cores,
    Drawn,
    JobTimes,
    Level,
    NodeTime,
    Steps,
    fitted,
    profile_of,
)
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.run import simulate
from shared.errors import InvalidRequest
from tests.loadgen.simulator.small import shot

DRAWN = Drawn(steps=10, guided=True, width=128, height=128)
FIXED, EACH = 0.01, 0.004
ENCODE, DECODE, WAY, AROUND = 0.03, 0.05, 0.006, 0.02


def job(step: float) -> JobTimes:
    """Of ten steps, seen by somebody who was alone."""
    nodes = (
        NodeTime("encode", 0.01, ENCODE),
        NodeTime("denoise", WAY, 10 * step),
        NodeTime("decode", WAY, DECODE),
    )
    return JobTimes(steps=10, seconds=AROUND + ENCODE + 10 * step + DECODE + 2 * WAY, nodes=nodes)


def level(users: int, forwards: int, rows: int) -> Level:
    step = FIXED + EACH * forwards * rows
    steps = Steps(steps=100, row_steps=100 * rows, seconds=100 * step)
    return Level(users=users, forwards=forwards, jobs=(job(step),) * 3, denoisers=(steps,))


LEVELS = [level(1, 2, 1), level(1, 1, 1), level(4, 2, 4), level(8, 1, 7)]


def test_a_line_goes_through_steps_of_all_sizes() -> None:
    found = fitted([(units, FIXED + EACH * units, 10) for units in (1, 2, 5, 14)])
    assert (found.fixed, found.per_unit) == pytest.approx((FIXED, EACH))


def test_what_was_seen_most_counts_most() -> None:
    found = fitted([(1.0, 0.1, 10_000), (1.0, 0.2, 1)])
    assert found.seconds(1.0) == pytest.approx(0.1, rel=0.01)


def test_steps_that_cost_less_when_they_are_larger_have_no_slope() -> None:
    found = fitted([(1.0, 0.2, 10), (4.0, 0.1, 10)])
    assert found.per_unit == 0.0
    assert found.fixed > 0.0


def test_nothing_is_fitted_to_nothing() -> None:
    with pytest.raises(InvalidRequest, match="at least one step"):
        fitted([(0.0, 0.0, 0)])


def test_costs_and_ways_are_those_that_were_seen() -> None:
    found = profile_of("here", "a test", {"pocket": DRAWN}, {"pocket": LEVELS}, max_rows=32)
    costs = {one.kind: one.cost for one in found.components.values()}
    assert costs["denoise"].seconds(2) == pytest.approx(FIXED + 2 * EACH)
    assert costs["denoise"].seconds(8) == pytest.approx(FIXED + 8 * EACH)
    assert costs["encode"].seconds(2) == pytest.approx(ENCODE)
    assert costs["decode"].seconds(1) == pytest.approx(DECODE)
    assert found.overheads.job == pytest.approx(AROUND)
    assert found.overheads.node == pytest.approx(WAY)
    assert found.host is not None
    assert found.host.denoisers == 1


def test_a_picture_alone_is_predicted_as_it_was_seen() -> None:
    found = profile_of("here", "a test", {"pocket": DRAWN}, {"pocket": LEVELS}, max_rows=32)
    [outcome] = simulate(Cluster(profile=found), [shot(model="pocket")]).outcomes
    assert outcome.latency == pytest.approx(job(FIXED + 2 * EACH).seconds)


def test_a_model_that_drew_nothing_is_named() -> None:
    with pytest.raises(InvalidRequest, match="pocket"):
        profile_of("here", "a test", {"pocket": DRAWN}, {"pocket": LEVELS[2:]}, max_rows=32)


BESIDE, REFUSAL, SPLIT = 0.03, 0.004, 0.001
"""Seconds of a core for each job beside its nodes, and for a request that is refused; and what
it takes to share a step."""
CROWDED = 1.5
"""Times as long as it computes a node takes where others want the same cores."""


def used(users: int, forwards: int, rows: int, shared: bool = False) -> Level:
    """As `level`, with what the processes used; both of two denoisers compute."""
    step = FIXED + EACH * forwards * rows
    crowded = CROWDED if users > 1 else 1.0
    seconds = FIXED + EACH + SPLIT if shared else crowded * step
    taken = 0.5 * (FIXED + EACH) if shared else step
    one = Steps(steps=50, row_steps=50 * rows, seconds=50 * seconds, processor=50 * taken)
    jobs = (job(seconds),) * (10 * rows)
    computed = len(jobs) * (ENCODE * forwards / 2 + DECODE)
    denoised = 2 * 50 * (2 * (FIXED + EACH) if shared else step)
    processor = {
        "prompt_encoder": len(jobs) * ENCODE * forwards / 2,
        "vae": len(jobs) * DECODE,
        "denoiser": denoised,
        "others": len(jobs) * BESIDE,
    }
    assert sum(processor.values()) == pytest.approx(computed + denoised + len(jobs) * BESIDE)
    return Level(
        users=users, forwards=forwards, jobs=jobs, denoisers=(one, one), processor=processor
    )


def test_costs_are_what_is_computed_and_not_what_others_take_of_the_same_cores() -> None:
    levels = [used(1, 2, 1, shared=True), used(1, 1, 1), used(8, 2, 4), used(16, 1, 7)]
    machine = Cores(cores=2, refusal=REFUSAL)
    found = profile_of("here", "a test", {"pocket": DRAWN}, {"pocket": levels}, 32, machine)
    costs = {one.kind: one.cost for one in found.components.values()}
    assert costs["denoise"].seconds(8) == pytest.approx(FIXED + 8 * EACH)
    assert costs["encode"].seconds(2) == pytest.approx(ENCODE)
    assert costs["decode"].seconds(1) == pytest.approx(DECODE)
    assert found.overheads.split == pytest.approx(SPLIT)
    assert found.overheads.cpu == REFUSAL
    assert found.overheads.drawn_cpu == pytest.approx(BESIDE - REFUSAL)
    assert found.host is not None
    assert (found.host.cores, found.host.denoisers) == (2.0, 2)


def test_a_shared_step_of_somebody_alone_is_predicted_as_it_was_seen() -> None:
    levels = [used(1, 2, 1, shared=True), used(1, 1, 1), used(8, 2, 4)]
    machine = Cores(cores=8, refusal=REFUSAL)
    found = profile_of("here", "a test", {"pocket": DRAWN}, {"pocket": levels}, 32, machine)
    [outcome] = simulate(Cluster(profile=found), [shot(model="pocket")]).outcomes
    assert outcome.latency == pytest.approx(job(FIXED + EACH + SPLIT).seconds, rel=0.01)


def test_a_step_that_several_cores_compute_takes_several() -> None:
    step = FIXED + EACH
    one = Steps(steps=100, row_steps=100, seconds=100 * step, processor=400 * step)
    levels = [
        Level(users=1, forwards=forwards, jobs=(job(step),) * 3, denoisers=(one,))
        for forwards in (2, 1)
    ]
    found = profile_of("here", "a test", {"pocket": DRAWN}, {"pocket": levels}, 32, Cores(cores=16))
    assert found.host is not None
    assert found.host.cores == pytest.approx(4.0)
