"""What people run today, in small cases that can be reckoned by hand."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.simulator.studies.cluster import BASELINES, Cluster
from loadgen.simulator.studies.names import Name
from loadgen.simulator.studies.run import simulate
from loadgen.simulator.systems.shares import apportioned, packed
from tests.loadgen.simulator.small import (
    DECODE,
    EACH,
    ENCODE,
    FIXED,
    JOB,
    STEP,
    STEPS,
    shot,
    small_profile,
)
from tests.loadgen.simulator.test_darkroom import crowd

ALONE = ENCODE + STEPS * STEP + DECODE
LOADING = 2.0 + 5.0 + 1.0
STEERED_LOADING = LOADING + 1.0
STEERED = STEPS * 0.15
SMALL = 100
"""Bytes of a device that holds one of the two pipelines."""


def cluster(system: Name, devices: int = 1, **changes: Any) -> Cluster:
    return Cluster(profile=small_profile(memory=SMALL, **changes), system=system, devices=devices)


def latencies(outcomes: Sequence[Outcome]) -> dict[int, float]:
    assert all(one.status == "done" for one in outcomes), outcomes
    return {one.shot.number: one.latency for one in outcomes}


@pytest.mark.parametrize("system", BASELINES)
def test_one_request_alone_takes_the_sum_of_its_parts(system: Name) -> None:
    assert latencies(simulate(cluster(system), [shot()]).outcomes) == {
        0: pytest.approx(JOB + ALONE)
    }


@pytest.mark.parametrize("system", BASELINES)
def test_what_waits_is_drawn_together(system: Name) -> None:
    found = latencies(simulate(cluster(system), [shot(0), shot(1), shot(2)]).outcomes)
    both = ENCODE + STEPS * (FIXED + 2 * EACH) + 2 * DECODE
    assert found[0] == pytest.approx(JOB + ALONE)
    assert found[1] == found[2] == pytest.approx(JOB + ALONE + both)


def test_requests_that_differ_in_steps_are_drawn_one_after_another() -> None:
    found = latencies(simulate(cluster("static"), [shot(0), shot(1), shot(2, steps=5)]).outcomes)
    assert found[2] - found[1] == pytest.approx(ALONE - 5 * STEP)


def test_a_batch_does_not_grow_beyond_a_deadline() -> None:
    """Two together would be 1 s later than one, so that both are late."""
    due = 2 * (JOB + ALONE) + 0.5
    shots = [shot(0), *(shot(n, deadline=due) for n in (1, 2))]
    outcomes = simulate(cluster("static"), shots).outcomes
    assert [one.shot.number for one in outcomes if one.status == "done"] == [0, 1]


def test_a_swap_takes_as_long_as_the_pipeline_takes_to_load() -> None:
    """The device holds `plain` first, for more is asked of it."""
    shots = [shot(0), shot(1), shot(2, 20.0, model="steered"), shot(3, 60.0)]
    run = simulate(cluster("swap"), shots)
    found = latencies(run.outcomes)
    assert found[2] == pytest.approx(JOB + STEERED_LOADING + ALONE + STEERED)
    assert found[3] == pytest.approx(JOB + LOADING + ALONE)
    assert run.statistics.loads == 2


def test_nothing_is_swapped_where_all_fits() -> None:
    both = msgspec.structs.replace(cluster("swap"), profile=small_profile(memory=200))
    run = simulate(both, [shot(0), shot(1, 20.0, model="steered"), shot(2, 40.0)])
    assert run.statistics.loads == 0


def test_who_needs_no_weights_overtakes() -> None:
    shots = [shot(0), shot(1), shot(2), shot(3, 0.1, model="steered"), shot(4, 0.2)]
    ended = [one.shot.number for one in simulate(cluster("swap"), shots).outcomes]
    assert ended[-1] == 3


def test_static_processes_leave_the_others_alone() -> None:
    """One process for each of the two workflows, however much more is asked of one."""
    shots = [shot(n) for n in range(20)] + [shot(20, model="steered")]
    found = latencies(simulate(cluster("static", devices=2), shots).outcomes)
    assert found[20] == pytest.approx(JOB + ALONE + STEERED)
    assert max(found.values()) > 10


def test_a_partition_follows_the_load() -> None:
    """For two minutes `plain` is asked for, then `steered`: somebody changes sides."""
    early = [shot(n, 0.4 * n) for n in range(300)]
    late = [shot(300 + n, 120.0 + 1.0 * n, model="steered") for n in range(120)]
    fixed, moved = (
        simulate(cluster(system, devices=4), [*early, *late]) for system in ("static", "partition")
    )
    assert moved.statistics.loads > 0
    assert max(latencies(moved.outcomes).values()) < max(latencies(fixed.outcomes).values())


@pytest.mark.parametrize("system", BASELINES)
@pytest.mark.parametrize("devices", [1, 3])
def test_every_request_ends_exactly_once_and_every_run_is_the_same(
    system: Name, devices: int
) -> None:
    shots: tuple[Shot, ...] = crowd(rate=2.0)
    once, again = (simulate(cluster(system, devices), shots) for _ in range(2))
    assert sorted(one.shot.number for one in once.outcomes) == [one.number for one in shots]
    assert once == again
    assert all(
        one.latency <= one.shot.request.deadline + 1e-9
        for one in once.outcomes
        if one.shot.request.deadline is not None
    )


def test_processes_are_apportioned_by_load() -> None:
    assert apportioned({"a": 6.0, "b": 2.0, "c": 0.1}, 8) == {"a": 5, "b": 2, "c": 1}
    assert apportioned({}, 2) == {}


def test_names_are_packed_into_parts_of_about_the_same_load() -> None:
    assert packed({"a": 5.0, "b": 3.0, "c": 2.0}, 2) == [("a",), ("b", "c")]
    assert packed({"a": 1.0}, 3) == [("a",)]
