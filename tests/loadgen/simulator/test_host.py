"""A fleet on one machine: what its processes take of each other's cores."""

import msgspec
import pytest

from loadgen.outcomes.outcome import Shot
from loadgen.simulator.profiles.profile import Host, Profile
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.run import simulate
from tests.loadgen.simulator.small import (
    DECODE,
    EACH,
    ENCODE,
    FIXED,
    JOB,
    NODE,
    SOLO,
    STEPS,
    shot,
    small_profile,
)

WAY = 0.02


def profile(cores: float = 2.0, guided: bool = False, **overheads: float) -> Profile:
    small = small_profile(host=Host(cores=cores, denoisers=2))
    workflows = {
        name: msgspec.structs.replace(one, guided=guided) for name, one in small.workflows.items()
    }
    around = msgspec.structs.replace(small.overheads, **overheads)
    return msgspec.structs.replace(small, workflows=workflows, overheads=around)


def latencies(profile: Profile, *shots: Shot) -> list[float]:
    run = simulate(Cluster(profile=profile), shots)
    assert all(one.status == "done" for one in run.outcomes)
    return [one.latency for one in sorted(run.outcomes, key=lambda one: one.shot.number)]


def test_what_is_done_beside_nodes_takes_of_the_cores_that_nodes_compute_on() -> None:
    alone = latencies(profile(cores=1.0), shot())
    assert alone == [pytest.approx(SOLO)]
    beside = latencies(profile(cores=1.0, drawn_cpu=0.3), shot())
    assert beside == [pytest.approx(SOLO + 0.3)]
    assert latencies(profile(cores=2.0, drawn_cpu=0.3), shot()) == [pytest.approx(SOLO)]


def test_what_a_request_takes_of_a_core_when_it_comes_is_part_of_its_way() -> None:
    assert latencies(profile(cpu=JOB / 2), shot()) == [pytest.approx(SOLO)]
    several = latencies(profile(cpu=0.1), *(shot(number) for number in range(3)))
    assert several[0] >= SOLO - JOB + 0.1 - 1e-9  # the planner takes one after another
    assert max(several) >= SOLO - JOB + 0.3 - 1e-9


def test_an_idle_denoiser_computes_half_of_a_guided_step() -> None:
    whole, half = FIXED + 2 * EACH, FIXED + EACH + WAY
    rest = JOB + ENCODE + NODE + NODE + DECODE
    assert latencies(profile(guided=True), shot()) == [pytest.approx(rest + STEPS * whole)]
    shared = latencies(profile(guided=True, split=WAY), shot())
    assert shared == [pytest.approx(rest + STEPS * half)]
    assert latencies(profile(split=WAY), shot()) == [pytest.approx(SOLO)]  # nothing to share


def test_nobody_helps_who_has_work_or_where_help_takes_longer() -> None:
    whole = STEPS * (FIXED + 2 * EACH)
    slow = latencies(profile(guided=True, split=1.0), shot())
    assert slow == [pytest.approx(JOB + ENCODE + NODE + whole + NODE + DECODE)]
    both = latencies(profile(cores=8.0, guided=True, split=WAY), shot(0), shot(1))
    assert min(both) > slow[0] - STEPS * EACH + WAY
