"""Comparisons and searches, and the command."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from loadgen.outcomes.outcome import RequestTemplate
from loadgen.report.statistics.slo import TimesSolo
from loadgen.runs.find_rate import Search
from loadgen.simulator.profiles import h800
from loadgen.simulator.profiles.profile import encoded
from loadgen.simulator.studies.cluster import Cluster
from loadgen.simulator.studies.comparison import Comparison
from loadgen.simulator.studies.names import SYSTEMS
from loadgen.simulator.studies.offer import offered, repeated
from loadgen.simulator.studies.search import (
    fewest_devices,
    highest_rate,
    largest_burst,
    ratio,
    solo_latencies,
)
from loadgen.workload.arrivals import Poisson
from loadgen.workload.trace import parse_trace
from loadgen.workload.workload import Entry, Workload, one_of_each
from services.fleet.cli.app import app
from shared.errors import InvalidRequest
from shared.host.command_exits import BAD_USAGE
from tests.loadgen.simulator.small import ENCODE, JOB, SOLO, STEP, STEPS, small_profile

PLAIN = Workload(
    arrivals=Poisson(rate=1.0),
    seconds=60.0,
    mix=(Entry(name="plain", request=RequestTemplate(model="plain")),),
)
SLO = TimesSolo(3.0, {"plain": SOLO})


def cluster(devices: int) -> Cluster:
    return Cluster(profile=small_profile(), devices=devices)


def test_a_trace_is_repeated_at_any_rate() -> None:
    trace = parse_trace(["A 0", "B 1", "A 2"])
    found = repeated(trace, rate=2.0, seconds=30.0)
    assert len(found) == pytest.approx(60, abs=3)
    assert [one.tenant for one in found[:6]] == ["A", "B", "A"] * 2
    assert all(one.at < 30.0 for one in found)
    slow = repeated(trace, rate=0.1, seconds=30.0)
    assert [one.tenant for one in slow] == ["A", "B", "A"]
    with pytest.raises(InvalidRequest, match="several"):
        repeated(trace[:1], 1.0, 1.0)


def test_arrivals_keep_their_kind_at_another_rate() -> None:
    assert len(offered(PLAIN, 5.0, 100.0)) == pytest.approx(500, rel=0.15)
    with pytest.raises(InvalidRequest, match="requests in a run"):
        offered(PLAIN, 1e4, 1e3)


def test_solo_is_that_of_the_fastest_system() -> None:
    found = solo_latencies(cluster(2), SYSTEMS, one_of_each(PLAIN))
    assert found == {"plain": pytest.approx(SOLO - 2 * 0.02)}


def test_twice_the_devices_sustain_about_twice_the_rate() -> None:
    search = Search(share=0.9, precision=0.1)
    one, two = (highest_rate(cluster(n), PLAIN, SLO, search, 100.0).rate for n in (1, 2))
    most = 8 / (STEPS * (0.1 + 8 * 0.1))
    assert 0.2 < one < most
    assert 1.5 < two / one < 3.5


def test_fewer_devices_are_not_enough() -> None:
    count = fewest_devices(cluster(4), PLAIN, SLO, 0.9, rate=2.0, seconds=60.0)
    assert count is not None
    less = fewest_devices(cluster(4), PLAIN, SLO, 0.9, rate=2.0, seconds=60.0, most=count - 1)
    assert less is None


def test_more_devices_take_a_larger_burst() -> None:
    search = Search(share=0.9, precision=0.2)
    small, large = (
        largest_burst(cluster(n), PLAIN, SLO, search, rate=0.3, lasting=10.0).rate for n in (2, 6)
    )
    assert 1.0 < small < large


def test_the_ratio_is_over_the_best_of_the_others() -> None:
    assert ratio({"darkroom": 6.0, "swap": 2.0, "static": 3.0}) == 2.0
    assert ratio({"darkroom": 6.0, "swap": 0.0}) is None


def simulated(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_systems_are_compared_in_a_table_json_and_a_page(tmp_path: Path) -> None:
    profile, found, page = (tmp_path / name for name in ("p.json", "r.json", "r.html"))
    profile.write_bytes(encoded(small_profile()))
    files = ("--json", str(found), "--html", str(page))
    common = ("--profile", str(profile), "--devices", "2", "--rate", "1", "--duration", "30")
    asked = ("--system", "all", "--tenant", "ann", "--tenant", "bo=2")
    result = simulated(*common, *asked, *files)
    assert result.exit_code == 0, result.output
    comparison = msgspec.json.decode(found.read_bytes(), type=Comparison)
    assert tuple(comparison.systems) == SYSTEMS
    for side in comparison.systems.values():
        assert side.report is not None
        assert side.report.overall.attainment is not None
        assert set(side.report.by_tenant) == {"ann", "bo"}
        assert set(side.report.by_template) == {"plain", "steered"}
    text = page.read_text()
    assert text.count("<h1>") == 5
    assert "default-src 'none'" in text
    again = simulated(*common, *asked, "--json", "-")
    assert json.loads(again.stdout[again.stdout.index("{") :]) == json.loads(found.read_text())


def test_a_rate_is_found() -> None:
    result = simulated(
        *("--profile", "h800/flux-schnell", "--devices", "2", "--find", "rate"),
        *("--published-trace", "1.0", "--precision", "0.3"),
    )
    assert result.exit_code == 0, result.output
    assert "requests/s with 90% in time" in result.output


def test_users_are_a_closed_loop() -> None:
    result = simulated(
        *("--profile", "h800/sdxl", "--users", "5", "--duration", "60", "--think", "1")
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "h800/sd9"), "flux-family"),
        (("--profile", "nowhere.json"), "nowhere.json"),
        (("--system", "darkroom,monolith"), "static, swap, partition"),
        (("--find", "happiness"), "rate, burst, devices"),
        (("--find", "burst"), "--rate"),
        (("--find", "rate", "--users", "3"), "--users"),
        (("--find", "rate", "--rate", "1,2"), "one rate"),
        (("--published-trace", "1.0"), "h800/SETTING"),
        (("--profile", "h800/sd3", "--published-trace", "9"), "1.0, 2.0, 4.0"),
        (("--profile", "h800/sd3", "--published-trace", "1.0", "--rate", "3"), "--rate"),
        (("--model", "sd9"), "flux-schnell"),
        (("--trace", "t.txt", "--rate", "3"), "--rate"),
        (("--slo", "soon"), "slo"),
        (("--json", "/nowhere/at/all.json"), "directory"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(arguments: tuple[str, ...], said: str) -> None:
    result = simulated(*arguments)
    assert result.exit_code == BAD_USAGE
    assert said in result.output


def test_every_setting_has_three_workflows_for_each_model() -> None:
    for setting, models in h800.SETTINGS.items():
        assert len(h800.of_setting(setting).workflows) == 3 * len(models)


def test_the_whole_of_a_pipeline_is_less_than_with_queues_between() -> None:
    assert pytest.approx(JOB + ENCODE + STEPS * STEP + 0.25 + 0.04) == SOLO
