"""A fleet is measured, and what it would do simulated."""

from pathlib import Path

import msgspec

from loadgen.simulator.profiles.profile import load_profile
from loadgen.simulator.studies.comparison import Comparison
from tests.e2e.helpers.running import RunningFleet


def test_a_measured_profile_is_simulated(fleet: RunningFleet, tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    options = ("--model", "pocket-sdxl", "--users", "1,3", "--seconds", "0.5")
    done = fleet.darkroom("profile", str(file), *options)
    assert done.returncode == 0, done.stderr
    found = load_profile(file)
    assert found.host is not None
    assert found.host.denoisers == 1
    assert all(one.cost.seconds(1.0) > 0.0 for one in found.components.values())
    ran = fleet.darkroom("simulate", "--profile", str(file), "--duration", "20", "--json", "-")
    assert ran.returncode == 0, ran.stderr
    side = msgspec.json.decode(ran.stdout, type=Comparison).systems["darkroom"]
    assert side.report is not None
    assert side.report.overall.done > 0


def test_a_model_that_is_not_served_is_named(fleet: RunningFleet, tmp_path: Path) -> None:
    done = fleet.darkroom("profile", str(tmp_path / "p.json"), "--model", "other")
    assert done.returncode == 2
    assert "pocket-sdxl" in done.stderr
