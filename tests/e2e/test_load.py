"""Load on the whole fleet: our own generator over HTTP and NATS, and Locust."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from loadgen.report.statistics.model import Report
from tests.conftest import HANG_SECONDS
from tests.e2e.helpers.running import RunningFleet

LOCUSTFILE = Path(__file__).parents[2] / "loadgen" / "locustfile.py"
WORKLOAD = """
[[mix]]
name = "quick"
request = { steps = 2 }
"""


def test_load_over_http_and_over_nats_finds_the_fleet_and_loses_nothing(
    fleet: RunningFleet,
) -> None:
    for target in ("darkroom", "nats"):
        ran = fleet.darkroom(
            *("load", "--target", target, "--arrivals", "constant", "--rate", "4"),
            *("--duration", "2", "--steps", "2,4", "--slo", "30", "--json", "-"),
        )
        assert ran.returncode == 0, ran.stderr
        report = msgspec.json.decode(ran.stdout, type=Report)
        assert (report.overall.requests, report.overall.done) == (8, 8)
        assert report.failures == []
        assert report.occupancy.mean_rows_per_step is not None
        assert report.occupancy.mean_rows_per_step >= 1


def test_locust_drives_the_gateway(fleet: RunningFleet, tmp_path: Path) -> None:
    workload = tmp_path / "load.toml"
    workload.write_text(WORKLOAD)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", fleet.http),
            *("--headless", "--users", "2", "--spawn-rate", "2", "--run-time", "3s"),
            *("--stop-timeout", "300", "--think", "0.1", "--workload", str(workload)),
            *("--json", "--only-summary"),
        ],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    [quick] = json.loads(ran.stdout)
    assert (quick["name"], quick["num_failures"]) == ("quick", 0)
    assert quick["num_requests"] > 0
