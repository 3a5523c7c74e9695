"""Small cases that can be reckoned by hand, and what holds of every run."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from time import process_time
from typing import Any

import pytest

from loadgen.outcomes.outcome import Outcome, RequestTemplate, Shot
from loadgen.report.statistics.slo import Absolute
from loadgen.simulator.cluster import stepper
from loadgen.simulator.profiles import h800
from loadgen.simulator.profiles.profile import Host
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.run import Simulated, simulate
from loadgen.simulator.studies.run import simulate as simulated
from loadgen.simulator.studies.users import ClosedLoop
from loadgen.simulator.systems.darkroom import Policies
from loadgen.workload.arrivals import Poisson
from loadgen.workload.workload import Entry, Workload, schedule
from shared.errors import InvalidRequest
from shared.policy import deadlines, step_scheduler
from shared.policy.release.decide import release
from shared.policy.release.jobs import Decision, WaitingJob
from tests.loadgen.simulator.small import (
    DECODE,
    EACH,
    ENCODE,
    FIXED,
    JOB,
    NODE,
    SOLO,
    STEP,
    STEPS,
    shot,
    small_profile,
)

AT_ONCE = Policies(release=None)
"""Every job is released when it comes."""


def latencies(outcomes: Sequence[Outcome]) -> dict[int, float]:
    assert all(one.status == "done" for one in outcomes), outcomes
    return {one.shot.number: one.latency for one in outcomes}


def one_device(encode: float = ENCODE) -> Cluster:
    return Cluster(profile=small_profile(encode), devices=1)


def test_one_job_alone_takes_the_sum_of_its_parts() -> None:
    assert latencies(simulate(one_device(), [shot()]).outcomes) == {0: pytest.approx(SOLO)}


def test_jobs_that_come_together_share_their_steps() -> None:
    """The first takes one step alone, for the other comes a moment later; so does the other's last
    step, and decoding beside it is computed at half the speed."""
    run = simulate(one_device(encode=0.0), [shot(0), shot(1)])
    found = latencies(run.outcomes)
    together = FIXED + 2 * EACH
    ready = JOB + NODE
    first = ready + STEP + (STEPS - 1) * together
    assert found[0] == pytest.approx(first + NODE + DECODE + (STEP - NODE), abs=1e-6)
    assert run.statistics.steps == STEPS + 1
    assert run.statistics.rows_per_step == pytest.approx(2 * STEPS / (STEPS + 1))


def test_two_devices_draw_two_pictures_side_by_side() -> None:
    """One of them is decoded after the other."""
    found = latencies(
        simulate(Cluster(profile=small_profile(), devices=2), [shot(0), shot(1)]).outcomes
    )
    assert found == {0: pytest.approx(SOLO), 1: pytest.approx(SOLO + DECODE)}


def test_every_picture_of_a_job_is_drawn() -> None:
    [outcome] = simulate(one_device(), [shot(n=3)]).outcomes
    assert outcome.images == 3
    assert outcome.latency > SOLO


def test_a_controlnet_is_asked_in_every_step() -> None:
    """0.15 s of its own, before the network can go on, and the way there and back."""
    [outcome] = simulate(one_device(), [shot(model="steered")]).outcomes
    assert outcome.latency == pytest.approx(SOLO + STEPS * (0.15 + 0.01))


def test_cores_are_shared_by_what_computes_at_the_same_time() -> None:
    """Two encodings on one core, in two processes... and on two cores, of which each has one."""
    shots = [shot(0), shot(1)]
    [slow, quick] = (
        simulate(Cluster(profile=small_profile(host=Host(cores=cores, denoisers=2))), shots)
        for cores in (1, 2)
    )
    assert max(latencies(slow.outcomes).values()) > max(latencies(quick.outcomes).values())


def test_a_size_of_a_quarter_costs_a_quarter_per_picture() -> None:
    [outcome] = simulate(one_device(), [shot(width=512, height=512)]).outcomes
    saved = STEPS * EACH * 0.75 + DECODE * 0.75
    assert outcome.latency == pytest.approx(SOLO - saved)


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="plain, steered"):
        simulate(one_device(), [shot(model="other")])


def test_nobody_is_served_after_the_deadline_that_a_request_carries() -> None:
    shots = [shot(n, 0.0, deadline=2 * SOLO) for n in range(12)]
    outcomes = simulate(one_device(), shots).outcomes
    done = [one for one in outcomes if one.status == "done"]
    assert 1 <= len(done) < len(shots)
    assert all(one.latency <= 2 * SOLO + 1e-9 for one in outcomes)
    failures = {one.failure for one in outcomes if one.status != "done"}
    assert failures <= {"deadline_exceeded", "deadline_unreachable"}
    assert failures


def test_deadlines_that_are_not_carried_are_only_judged_by() -> None:
    shots = [shot(n) for n in range(12)]
    run = simulate(one_device(), shots, Absolute(1.2 * SOLO), carried=False)
    assert all(one.status == "done" for one in run.outcomes)
    assert run.statistics.late_share > 0.3
    assert run.statistics.wasted_share == 0.0


def crowd(seconds: float = 30.0, rate: float = 3.0) -> tuple[Shot, ...]:
    mix = tuple(
        Entry(
            name=f"{model} {steps}",
            request=RequestTemplate(model=model, steps=steps, n=images, deadline=deadline),
        )
        for model in ("plain", "steered")
        for steps, images, deadline in ((5, 1, None), (10, 2, 9.0), (20, 1, 12.0))
    )
    return schedule(
        Workload(arrivals=Poisson(rate=rate), seconds=seconds, mix=mix, tenants={"a": 1, "b": 2})
    )


@pytest.mark.parametrize("rate", [1.0, 6.0])
@pytest.mark.parametrize("devices", [1, 3])
def test_every_job_ends_exactly_once_and_every_run_is_the_same(rate: float, devices: int) -> None:
    shots = crowd(rate=rate)
    cluster = Cluster(profile=small_profile(), devices=devices)
    once, again = simulate(cluster, shots), simulate(cluster, shots)
    assert sorted(one.shot.number for one in once.outcomes) == [one.number for one in shots]
    assert once == again


def test_what_devices_compute_is_what_jobs_were_given() -> None:
    """Conservation: a device never idles while it computes for somebody, nor the other way."""
    run = simulate(Cluster(profile=small_profile(), devices=2), crowd(rate=1.0))
    ended = max(one.ended_at for one in run.outcomes)
    assert run.statistics.utilisation * 2 * ended == pytest.approx(
        run.statistics.computed_seconds, rel=0.02
    )


def test_users_of_a_closed_loop_wait_for_their_answers() -> None:
    workload = Workload(seconds=30.0, mix=(Entry(request=RequestTemplate(model="plain")),))
    run = simulate(one_device(), ClosedLoop(workload, users=1))
    assert len(run.outcomes) == pytest.approx(30.0 / SOLO, abs=1)
    many = simulate(one_device(), ClosedLoop(workload, users=6, think=1.0))
    assert len(many.outcomes) > len(run.outcomes)


def test_the_products_step_scheduler_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutants of it make another run of the same requests, which are all released when they
    come."""
    shots = crowd(rate=3.0)
    cluster = Cluster(profile=small_profile(), devices=2)
    simulate = partial(simulated, policies=AT_ONCE)
    found = simulate(cluster, shots)
    with monkeypatch.context() as mutant:
        mutant.setattr(step_scheduler, "would_delay", lambda *_: False)
        assert simulate(cluster, shots) != found
    with monkeypatch.context() as mutant:
        mutant.setattr(step_scheduler, "always_batch", lambda *_: False)
        mutant.setattr(step_scheduler, "worth_batching", lambda *_: False)
        assert simulate(cluster, shots).statistics.rows_per_step == pytest.approx(1.0, abs=0.1)
    with monkeypatch.context() as mutant:
        mutant.setattr(deadlines, "_late", lambda *_: set())
        assert simulate(cluster, shots) != found
    assert simulate(cluster, shots) == found


def test_admission_is_the_products() -> None:
    """Early refusals leave the others in time; without deadlines, or shares, the run is another."""
    shots = tuple(shot(n, 0.1 * n, deadline=2 * SOLO) for n in range(100))
    cluster = Cluster(profile=small_profile(), devices=2)
    found, late = simulated(cluster, shots), simulated(cluster, shots, policies=AT_ONCE)
    refused = [one for one in found.outcomes if one.failure == "deadline_unreachable"]
    assert len(refused) > 50
    assert sum(one.latency < 0.05 for one in refused) > 0.8 * len(refused)
    assert found.statistics.wasted_share < late.statistics.wasted_share
    assert done(found) > done(late)

    def forgets_deadlines(backlog: Sequence[WaitingJob], *told: Any) -> Decision:
        return release([replace(job, deadline=None) for job in backlog], *told)

    mutant = simulated(cluster, shots, policies=Policies(release=forgets_deadlines))
    assert done(mutant) < done(found)


def test_a_light_user_is_not_shut_out() -> None:
    """Beside one with many jobs; one who forgets shares serves them in order of arrival."""
    heavy = [shot(3 * n, 0.0, steps=20) for n in range(40)]
    light = [shot(3 * n + 1, 5.0 + 8.0 * n) for n in range(5)]
    cluster = Cluster(profile=small_profile(), devices=1)
    found = simulated(cluster, [*heavy, *light])

    def forgets_shares(backlog: Sequence[WaitingJob], *told: Any) -> Decision:
        return release([replace(job, user="all") for job in backlog], *told)

    mutant = simulated(cluster, [*heavy, *light], policies=Policies(release=forgets_shares))
    waits = [mean(latencies(run.outcomes)[one.number] for one in light) for run in (found, mutant)]
    assert waits[0] < 0.7 * waits[1]


def done(run: Simulated) -> int:
    return sum(one.status == "done" for one in run.outcomes)


def test_the_least_loaded_pulls_first(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = crowd(rate=4.0)
    cluster = Cluster(profile=small_profile(), devices=3)
    found = simulate(cluster, shots, policies=AT_ONCE)
    monkeypatch.setattr(stepper, "level", lambda seconds, count: 5)
    assert simulate(cluster, shots, policies=AT_ONCE) != found


def test_a_thousand_devices_are_simulated_in_seconds() -> None:
    """As many requests a second as keep a twentieth of them busy. A core that has nothing else to
    do needs a second or two, a tenth of what is allowed."""
    profile = h800.of_setting("flux-family")
    mix = tuple(Entry(name=name, request=RequestTemplate(model=name)) for name in profile.workflows)
    workload = Workload(arrivals=Poisson(rate=15.0), seconds=10.0, mix=mix)
    cluster = Cluster(profile=profile, devices=1024)
    began = process_time()
    run = simulate(cluster, schedule(workload))
    assert process_time() - began < 20.0
    assert len(run.outcomes) > 120
    assert all(one.status == "done" for one in run.outcomes)
