"""What a report says of what happened."""

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from loadgen.outcomes.outcome import Outcome, Sample
from loadgen.report.page.findings import MOST_ROWS, warnings
from loadgen.report.page.table import render_table
from loadgen.report.statistics.model import Attainment, Failure, Report
from loadgen.report.statistics.series import INTERVALS, POINTS
from loadgen.report.statistics.slo import Absolute, OwnDeadlines, TimesSolo
from loadgen.report.statistics.summary import summarise
from shared.errors import InvalidRequest
from tests.loadgen.report.shots import busy_run, outcome, samples


def report(outcomes: list[Outcome], seconds: float = 10.0) -> Report:
    return summarise(outcomes, [], Absolute(2.0), seconds)


def shown(said: Report, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(render_table(said))
    text = console.file
    assert isinstance(text, StringIO)
    return text.getvalue()


def test_rates_count_what_ended_in_the_window_and_attainment_everything() -> None:
    said = report([outcome(at=1), outcome(at=2, latency=3), outcome(at=9.5), outcome(at=9.9)])
    assert (said.overall.requests_per_second, said.overall.images_per_second) == (0.2, 0.2)
    assert said.overall.goodput_requests_per_second == 0.1
    assert said.overall.attainment is not None
    assert (said.overall.attainment.met, said.overall.attainment.of) == (3, 4)
    assert said.offered_per_second == 0.4
    assert said.drain_seconds == pytest.approx(0.9)


def test_latency_counts_from_the_intended_send() -> None:
    said = report([outcome(at=1.0, late=0.9, latency=1.0)])
    assert said.overall.latency is not None
    assert said.overall.latency.max == 1.0
    assert said.lateness is not None
    assert said.lateness.max == 0.9


def test_what_was_not_done_has_missed_its_deadline_and_has_no_latency() -> None:
    said = report([outcome(), outcome(latency=0.1, status="rejected"), outcome(status="lost")])
    assert said.overall.attainment is not None
    assert (said.overall.attainment.met, said.overall.attainment.of) == (1, 3)
    assert said.overall.latency is not None
    assert said.overall.latency.p50 == 1.0
    assert (said.overall.done, said.overall.failed, said.overall.images) == (1, 2, 1)


def test_failures_are_counted_by_status_and_reason() -> None:
    said = report([outcome(status="failed"), outcome(status="lost"), outcome(status="failed")])
    assert said.failures == [
        Failure(status="failed", failure="failed_by_test", count=2),
        Failure(status="lost", failure="lost_by_test", count=1),
    ]


def test_only_requests_with_a_deadline_count_towards_attainment() -> None:
    outcomes = [outcome(deadline=2.0), outcome(latency=3.0, deadline=2.0), outcome(latency=9.0)]
    said = summarise(outcomes, [], OwnDeadlines(), 10.0)
    assert said.overall.attainment is not None
    assert (said.overall.attainment.met, said.overall.attainment.of) == (1, 2)
    assert said.overall.goodput_requests_per_second == 0.2
    assert summarise([outcome()], [], OwnDeadlines(), 10.0).overall.attainment is None


def test_each_template_has_its_own_multiple() -> None:
    slo = TimesSolo(2.0, {"small": 0.5, "large": 2.0})
    outcomes = [outcome(latency=1.5), outcome(latency=1.5, template="large")]
    said = summarise(outcomes, [], slo, 10.0)
    shares = {name: group.attainment for name, group in said.by_template.items()}
    assert isinstance(shares["small"], Attainment)
    assert isinstance(shares["large"], Attainment)
    assert (shares["small"].share, shares["large"].share) == (0.0, 1.0)


def test_every_request_is_in_one_group_of_each_kind() -> None:
    said = report(busy_run(), 60.0)
    assert set(said.by_class) == {"batch", "interactive"}
    assert set(said.by_tenant) == {"anna", "bert", "carla"}
    for groups in (said.by_class, said.by_tenant, said.by_template):
        for field in ("requests", "done", "failed", "images", "bytes"):
            total = sum(getattr(group, field) for group in groups.values())
            assert total == getattr(said.overall, field)
        rates = sum(group.images_per_second for group in groups.values())
        assert rates == pytest.approx(said.overall.images_per_second)


def test_the_timeline_counts_every_request_once() -> None:
    said = report(busy_run(), 60.0)
    intervals = said.timeline.intervals
    assert sum(one.intended for one in intervals) == said.overall.requests
    assert sum(one.done for one in intervals) == said.overall.done
    assert sum(one.failed for one in intervals) == said.overall.failed
    assert sum(one.images for one in intervals) == said.overall.images
    assert said.overall.attainment is not None
    assert sum(one.good for one in intervals) == said.overall.attainment.met
    assert len(intervals) <= INTERVALS
    assert len(intervals) * said.timeline.width >= 60.0


def test_a_long_run_is_thinned_and_its_peaks_are_kept() -> None:
    seen = [Sample(float(at), at % 100, at, 2.0 if at % 2 else None) for at in range(10 * POINTS)]
    said = summarise([], seen, Absolute(1.0), 1.0).occupancy
    assert len(said.points) == POINTS
    assert (said.peak_queue_depth, said.peak_in_flight) == (99, 10 * POINTS - 1)
    assert said.mean_rows_per_step == 2.0
    assert said.points[0].rows_per_step == 2.0


def test_a_server_that_does_not_tell_has_no_queue() -> None:
    said = summarise([], [Sample(1.0, None, 3, None)], Absolute(1.0), 1.0).occupancy
    assert (said.peak_queue_depth, said.mean_rows_per_step, said.peak_in_flight) == (None, None, 3)


@pytest.mark.parametrize(
    "outcomes",
    [[], [outcome()], [outcome(status="failed")], [outcome(status="timeout")] * 20],
    ids=["none", "one", "one failed", "all timed out"],
)
def test_a_run_of_little_or_nothing_has_a_report(outcomes: list[Outcome]) -> None:
    said = report(outcomes)
    done = sum(one.status == "done" for one in outcomes)
    assert (said.overall.latency is None) == (done == 0)
    assert bool(warnings(said)) == (bool(outcomes) and done == 0)
    assert "all" in shown(said)


def test_a_report_survives_json() -> None:
    outcomes = busy_run()
    slo = TimesSolo(2.0, {"small": 0.5, "large": 2.0})
    said = summarise(outcomes, samples(outcomes), slo, 60.0, {"target": "a test"})
    assert msgspec.json.decode(msgspec.json.encode(said), type=Report) == said


def test_a_generator_that_lags_is_told_of() -> None:
    assert not warnings(report([outcome()] * 200))
    assert "could not keep up" in shown(report([outcome(late=0.2)] * 200), width=200)


def test_a_table_says_what_the_report_says() -> None:
    outcomes = busy_run()
    said = summarise(outcomes, samples(outcomes), Absolute(2.0), 60.0, {"target": "a test"})
    text = shown(said)
    for expected in ("a test", "within 2 s", "carla", "interactive", "rejected_by_test"):
        assert expected in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_a_table_names_the_largest_tenants_and_counts_the_others() -> None:
    outcomes = [outcome(tenant=f"tenant{i:03}") for i in range(100) for _ in range(1 + (i == 77))]
    text = shown(report(outcomes))
    assert "tenant077" in text
    assert f"and {100 - MOST_ROWS} more" in text


def test_names_are_no_markup() -> None:
    assert "[red]me[/red]" in shown(report([outcome(tenant="[red]me[/red]")]), width=120)


def test_a_run_without_a_window_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="seconds"):
        report([], seconds=0.0)


def test_the_names_that_others_read_stay() -> None:
    """Fields may be added here; one that goes or changes its name breaks who reads the JSON."""
    outcomes = busy_run()
    said = summarise(outcomes, samples(outcomes), Absolute(2.0), 60.0)
    read = msgspec.json.decode(msgspec.json.encode(said))
    rates = {f"{what}_per_second" for what in ("requests", "images")}
    goodput = {f"goodput_{rate}" for rate in rates}
    counts = {"requests", "done", "failed", "images", "bytes"}
    groups = {"overall", "by_class", "by_tenant", "by_template"}
    run = {"version", "about", "seconds", "drain_seconds", "slo", "offered_per_second"}
    seen = {"failures", "lateness", "curve", "curve_by_class", "bins", "timeline", "occupancy"}
    assert set(read) >= run | groups | seen
    assert set(read["overall"]) >= rates | goodput | counts | {"latency", "attainment"}
    assert set(read["overall"]["latency"]) >= {"p50", "p90", "p95", "p99", "max"}
    assert set(read["overall"]["attainment"]) >= {"met", "of", "share", "low", "high"}
    assert set(read["failures"][0]) >= {"status", "failure", "count"}
    assert set(read["lateness"]) >= {"p50", "p99", "max"}
    interval = {"at", "intended", "done", "good", "failed", "images", "p50", "p95", "max"}
    assert set(read["timeline"]["intervals"][0]) >= interval
    point = {"at", "queue_depth", "in_flight", "rows_per_step"}
    assert set(read["occupancy"]["points"][0]) >= point
    assert read["slo"] == {"type": "absolute", "seconds": 2.0}
