"""What `benchmarks.serving` makes of what it sees; no system is measured here."""

import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.traffic_mix import images_through_network, mix, workload
from benchmarks.serving.__main__ import rows
from benchmarks.serving.burst import Burst, Recovery, attainment, recovery
from benchmarks.serving.contender import Contender
from benchmarks.serving.network import NetworkTime
from benchmarks.serving.peak import Peak, PeakSearch, that_fit
from benchmarks.serving.plan import Plan
from benchmarks.serving.results import (
    BurstResult,
    Load,
    Saturation,
    Visit,
    cpu_overhead,
    summary,
)
from benchmarks.serving.search import Next, Search
from benchmarks.serving.systems import System
from loadgen.outcomes.outcome import Outcome, RequestTemplate, Shot
from loadgen.report.statistics.slo import Absolute, TimesSolo
from loadgen.report.statistics.wilson import wilson
from loadgen.runs.find_rate import Level, Trial
from loadgen.targets.base import Answer
from loadgen.workload.arrivals import Poisson
from loadgen.workload.workload import schedule
from shared.errors import Misconfigured
from tests.conftest import run

BURST = Burst(began=10.0, ended=20.0)


def outcome(sent: float, ended: float) -> Outcome:
    shot = Shot(0, sent, "tenant", "template", RequestTemplate(steps=10))
    return Outcome(shot, sent, ended, "done", None, 1, 100)


def test_the_mix_has_every_combination_of_steps_and_guidance_equally_often() -> None:
    entries = mix((10, 40))
    pairs = Counter((entry.request.steps, entry.request.guidance) for entry in entries)
    assert pairs == {(s, g): 1 for s in (10, 40) for g in (1.0, 2.0, 4.0)}
    assert len({entry.name for entry in entries}) == len(entries)
    assert {entry.weight for entry in entries} == {1.0}


def test_the_same_seed_offers_every_system_the_same_requests() -> None:
    first, second = (schedule(workload(mix(), Poisson(rate=5.0), 10.0, seed=3)) for _ in range(2))
    assert first == second
    assert first != schedule(workload(mix(), Poisson(rate=5.0), 10.0, seed=4))


@pytest.mark.parametrize(("guidance", "images"), [(1.0, 10), (2.0, 20)])
def test_guidance_sends_two_images_through_the_network(guidance: float, images: int) -> None:
    shot = Shot(0, 0.0, "", "", RequestTemplate(steps=10, guidance=guidance))
    assert images_through_network(shot) == images


def test_only_requests_of_the_burst_count_for_it() -> None:
    outcomes = [outcome(5.0, 5.5), outcome(12.0, 12.9), outcome(13.0, 15.0), outcome(20.0, 20.1)]
    assert attainment(outcomes, BURST, Absolute(1.0)) == (1, 2)


def test_a_queue_is_as_before_when_no_more_is_in_flight_than_ever_was_before_the_burst() -> None:
    before = [outcome(1.0, 3.0), outcome(2.0, 4.0)]
    during = [outcome(11.0, 22.0), outcome(12.0, 24.0), outcome(13.0, 26.0), outcome(14.0, 28.0)]
    after = [outcome(30.0, 31.0)]
    assert recovery([*before, *during, *after], BURST) == Recovery(4.0, True, 2, 4)


def test_a_queue_that_never_grew_needs_no_time() -> None:
    outcomes = [outcome(1.0, 2.0), outcome(11.0, 12.0), outcome(30.0, 31.0)]
    assert recovery(outcomes, BURST) == Recovery(0.0, True, 1, 1)


def test_a_queue_that_only_shrinks_once_nobody_sends_has_not_recovered() -> None:
    outcomes = [outcome(1.0, 2.0), outcome(11.0, 50.0), outcome(12.0, 51.0), outcome(30.0, 52.0)]
    assert recovery(outcomes, BURST) == Recovery(10.0, False, 1, 3)


def test_processor_time_is_counted_over_all_processes() -> None:
    before = cpu_seconds([os.getpid()])
    while cpu_seconds([os.getpid()]) < before + 0.05:
        sum(range(10_000))
    assert cpu_seconds([os.getpid(), os.getpid()]) >= 2 * before + 0.1


def test_a_process_that_ended_is_named() -> None:
    with pytest.raises(Misconfigured, match="process 4194305 has ended"):
        cpu_seconds([4_194_305])  # above the kernel's highest process id


def search_of(*trials: tuple[float, int]) -> PeakSearch:
    return PeakSearch("it", Search(), [Trial(rate=rate, met=met, of=100) for rate, met in trials])


def test_the_rate_is_the_highest_that_was_sustained_with_its_wilson_interval() -> None:
    peak = search_of((1.0, 99), (2.0, 95), (4.0, 10)).peak
    assert (peak.sustained, peak.found, peak.level.share, peak.level.of) == (2.0, True, 0.95, 100)
    assert (peak.level.low, peak.level.high) == wilson(95, 100)
    assert peak.surely == (1.0, 4.0)
    assert json.loads(json.dumps(peak.as_json()))["rate_share_interval"] == [0.8882, 0.9785]


def test_who_sustained_no_rate_is_credited_with_the_lowest_that_was_tried() -> None:
    peak = search_of((1.0, 50), (0.5, 80)).peak
    assert (peak.sustained, peak.found) == (0.5, False)


def test_a_search_stops_when_its_next_trial_does_not_fit_and_goes_on_where_it_stopped() -> None:
    search = PeakSearch("it", Search(start=1.0, coarse=20, fine=60))
    offered: list[tuple[Next, int]] = []

    async def trial(wanted: Next, number: int) -> Trial:
        offered.append((wanted, number))
        return Trial(rate=wanted.rate, met=0, of=wanted.requests)

    run(search.go_on(trial, budget=10.0, overhead=0.0))
    assert offered == [(Next(1.0, 20), 0)]  # too long as well, but something must be known
    run(search.go_on(trial, budget=32.0, overhead=1.0))
    assert len(offered) == 1  # 20 at 0.625 take 32 s, and 1 s besides
    search.search = replace(search.search, coarse=10)
    run(search.go_on(lambda *asked: _counted(trial, search, *asked), budget=32.0, overhead=1.0))
    assert offered[1:] == [(Next(0.625, 10), 1)]


async def _counted(
    trial: Callable[[Next, int], Awaitable[Trial]], search: PeakSearch, wanted: Next, number: int
) -> Trial:
    """The search's last trial."""
    search.search = replace(search.search, coarse=1000)
    return await trial(wanted, number)


def test_a_trial_near_the_end_of_its_time_offers_what_fits() -> None:
    assert that_fit(Next(2.0, 60), 40.0, Next(2.0, 20)) == Next(2.0, 60)
    assert that_fit(Next(2.0, 60), 15.0, Next(2.0, 20)) == Next(2.0, 30)
    assert that_fit(Next(2.0, 60), 9.0, Next(2.0, 20)) is None


class Instant:
    """A server that has every picture ready."""

    name = "instant"
    takes = frozenset({"steps"})
    source = None

    def __init__(self, failure: str | None = None) -> None:
        self.failure = failure
        self.shots: list[Shot] = []

    async def send(self, shot: Shot) -> Answer:
        self.shots.append(shot)
        if self.failure is not None and shot.request.deadline is not None:
            return Answer("failed", self.failure)
        return Answer("done", None, 1, 10)


def contender(failure: str | None = None) -> Contender:
    plan = Plan(
        load_seconds=0.2,
        before_burst=0.1,
        burst_seconds=0.1,
        after_burst=0.1,
        users=2,
        warm_seconds=0.05,
        saturation_seconds=0.05,
    )
    entries = mix((10,))
    return Contender(
        system=System("instant", "", "", lambda: [os.getpid()]),
        target=Instant(failure),
        model="",
        plan=plan,
        entries=entries,
        search=PeakSearch("instant", Search(start=200.0, coarse=20, fine=20)),
        solo={entry.name: 10.0 for entry in entries},
    )


def test_a_load_tells_who_was_in_time_and_who_was_not() -> None:
    one = contender()
    in_time = run(one.load(100.0, TimesSolo(2.0, one.solo), seed=1))
    assert in_time.requests > 5
    assert (in_time.met, in_time.unfinished) == (in_time.requests, 0)
    assert 0.0 <= in_time.p50 <= in_time.p95 < 10.0
    late = run(one.load(100.0, Absolute(0.0), seed=1))
    assert (late.met, late.requests) == (0, in_time.requests)


def test_a_burst_sends_many_times_the_rate() -> None:
    one = contender()
    found = run(one.burst(50.0, TimesSolo(2.0, one.solo), seed=1))
    assert found.requests > 20  # 5 would be due in that time at the rate itself
    assert found.met == found.requests
    assert found.recovery.recovered


def test_every_request_that_is_judged_carries_its_deadline_and_no_other_does() -> None:
    one = contender()
    one.deadlines = {name: 2.0 * solo for name, solo in one.solo.items()}
    slo, target = TimesSolo(2.0, one.solo), one.target
    assert isinstance(target, Instant)
    run(one.load(100.0, slo, seed=1))
    run(one.burst(50.0, slo, seed=1))
    run(one.find_peak(slo))
    carried = {shot.request.deadline for shot in target.shots}
    judged = [shot for shot in target.shots if shot.request.deadline is not None]
    assert carried == {20.0, None}  # none: to see that the server is quiet again
    assert len(judged) > 40
    target.shots.clear()
    run(one.saturate())
    assert {shot.request.deadline for shot in target.shots} == {None}


def test_without_deadlines_no_request_carries_one() -> None:
    one = contender()
    assert isinstance(one.target, Instant)
    run(one.load(100.0, TimesSolo(2.0, one.solo), seed=1))
    assert {shot.request.deadline for shot in one.target.shots} == {None}


def test_who_fails_quickly_is_not_fast() -> None:
    one = contender("deadline_exceeded")
    one.deadlines = dict.fromkeys(one.solo, 20.0)
    found = run(one.load(100.0, TimesSolo(2.0, one.solo), seed=1))
    assert (found.met, found.unfinished) == (0, found.requests)
    assert found.failures == {"deadline_exceeded": found.requests}
    assert (found.p50, found.p95, found.p95_is_bound) == (20.0, 20.0, True)


def test_a_slow_rate_is_offered_until_there_are_enough_requests() -> None:
    one = contender()
    found = run(one.load(20.0, TimesSolo(2.0, one.solo), seed=1))  # 4 would be due
    assert found.requests == one.plan.least_requests


def visit(p95: float, met: int, seconds: float, cpu: float, network: float | None) -> Visit:
    load = Load(1.0, 10, 9, 0, {}, p95 / 2, p95, False)
    burst = BurstResult(1.0, 10, met, Recovery(seconds, True, 1, 9), {})
    return Visit(load, load, burst, Saturation(50, 2.0, cpu, network_per_image=network))


def rate(value: float, found: bool = True) -> Peak:
    level = Level(rate=value, trials=1, met=92, of=100, share=0.92, low=0.86, high=0.96)
    return Peak(level, found, (0.0, None))


def results() -> dict[str, object]:
    rates = {"serial": rate(0.5), "request_batching": rate(0.8), "darkroom": rate(2.4)}
    rounds = [
        {
            "serial": visit(4.0, 1, 9.0, 0.5, None),
            "request_batching": visit(3.0, 1, 8.0, 0.4, None),
            "darkroom": visit(1.5, met, seconds, 0.3, 0.25),
        }
        for met, seconds in ((4, 2.0), (6, 4.0))
    ]
    return summary(rates, {name: {"template": 0.5} for name in rates}, rounds)


def test_ours_is_compared_with_the_best_baseline() -> None:
    found = results()
    assert found["rate_ratio"] == 3.0
    assert found["p95_ratio"] == 2.0
    assert found["burst_attainment"] == 0.5
    assert found["burst_recovery_seconds"] == 3.0
    assert found["cpu_overhead"] == 0.2
    json.dumps(found)


def test_a_rate_that_we_did_not_sustain_is_not_credited_to_us() -> None:
    rates = {"serial": rate(0.5), "darkroom": rate(1.0, found=False)}
    visits = {"serial": visit(4.0, 1, 9.0, 0.5, None), "darkroom": visit(1.5, 4, 2.0, 0.3, 0.25)}
    assert summary(rates, {name: {} for name in rates}, [visits])["rate_ratio"] == 0.0


def test_an_interrupted_run_tells_what_it_has() -> None:
    solo: dict[str, dict[str, float]] = {"serial": {}, "darkroom": {}}
    nothing = summary({}, solo, [{}])
    assert nothing["rate_ratio"] is None
    assert nothing["cpu_overhead"] is None
    load = Load(1.0, 10, 9, 0, {}, 1.0, 2.0, False)
    partly = summary(
        {"serial": rate(0.5), "darkroom": rate(1.5)}, solo, [{"darkroom": Visit(load)}]
    )
    assert partly["rate_ratio"] == 3.0
    assert (partly["p95_ratio"], partly["burst_attainment"]) == (None, None)
    assert len(rows(partly)) == 1 + 2 + 5
    json.dumps(partly)


def test_the_table_has_a_line_for_each_system_and_each_figure() -> None:
    table = rows(results())
    assert max(len(line) for line in table) == len(table[0])
    assert {line[0] for line in table[1:]} == {
        "serial",
        "request_batching",
        "darkroom",
        "rate_ratio",
        "p95_ratio",
        "burst_attainment",
        "burst_recovery_seconds",
        "cpu_overhead",
    }


def test_the_overhead_is_what_is_paid_above_the_network() -> None:
    found = [Saturation(10, 1.0, 0.33, network_per_image=0.3), Saturation(10, 1.0, 0.33, 1.0, 0.3)]
    assert cpu_overhead(found) == pytest.approx(0.1)


def test_an_image_costs_its_forwards_one_decode_and_one_prompt() -> None:
    time = NetworkTime(batch=8.0, forward=0.05, decode=0.03, encode=0.01)
    assert time.per_image(forwards=4.0) == pytest.approx(0.24)
