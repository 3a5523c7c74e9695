"""What is compared on simulated clusters; nothing is measured here."""

import argparse
import json

import pytest

from benchmarks.simulate.__main__ import add_arguments, rows
from benchmarks.simulate.clusters import Setting, setting_of, speed, study
from loadgen.simulator.studies.names import SYSTEMS


@pytest.fixture(scope="module")
def schnell() -> Setting:
    return setting_of("flux-schnell")


def test_deadlines_are_twice_what_the_fastest_system_takes(schnell: Setting) -> None:
    assert schnell.slo.factor == 2.0
    assert len(schnell.slo.solo) == 3
    assert 1.0 < schnell.longest < 2.0
    assert 0.9 < schnell.load < schnell.longest + 0.1


def test_all_systems_are_compared_at_rates_and_bursts(schnell: Setting) -> None:
    found = study([schnell], devices=2, precision=0.5)
    one = found["settings"]["flux-schnell"]
    assert set(one["rates"]) == set(one["bursts"]) == set(SYSTEMS)
    assert found["rate_ratio"] == one["rate_ratio"]
    results = {"rate_ratio_2": found["rate_ratio"], "clusters": {2: found}}
    json.dumps(results)
    lines = rows(results)
    assert {len(line) for line in lines} == {len(lines[0])}


def test_decisions_are_timed(schnell: Setting) -> None:
    found = speed(schnell, devices=2, rate=1.0)
    assert found["decide_us"] > 0.0
    assert found["seconds_simulated_per_second"] > 0.0


@pytest.mark.parametrize(
    "arguments", [("--sizes", "0"), ("--sizes", "2000"), ("--settings", "sd9")]
)
def test_what_cannot_be_simulated_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert "allowed" in capsys.readouterr().err
