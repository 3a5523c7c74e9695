"""The programs' edges and summaries; none of them is measured here."""

import importlib
import json

import pytest

from benchmarks.harness.pixels import Difference
from benchmarks.harness.program import parse
from benchmarks.joining import Arrival, start_of_step
from benchmarks.joining import summary as joining_summary
from benchmarks.plan.__main__ import summary as plan_summary
from benchmarks.plan.rules import Rule
from benchmarks.switching import summary as switching_summary
from benchmarks.throughput import FULL, Round
from benchmarks.throughput import summary as throughput_summary
from shared.shipped import DEFAULT_MODEL

PROGRAMS = (
    "exactness",
    "starts",
    "throughput",
    "solo",
    "joining",
    "hops",
    "lora",
    "latent_parallel",
    "plan",
    "balance",
    "turns",
    "fidelity",
    "edit_fidelity",
    "cache_sharing",
    "masked_step",
    "editing",
    "controlnet",
    "swift",
    "serving",
    "simulate",
    "overload",
    "shared_weights",
    "switching",
)


def test_without_options_the_shipped_model_is_measured_in_full() -> None:
    options = parse("solo", "", [])
    assert (options.model, options.quick, options.json) == (DEFAULT_MODEL, False, False)


def test_options_are_read() -> None:
    options = parse("solo", "", ["--quick", "--json", "--model", "some/model"])
    assert (options.model, options.quick, options.json) == ("some/model", True, True)


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("solo", "", ["--fast"])
    assert "--fast" in capsys.readouterr().err


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_says_what_it_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    about = importlib.import_module(f"benchmarks.{name}").__doc__
    with pytest.raises(SystemExit):
        parse(name, about or "", ["--help"])
    assert about is not None
    assert about.strip().splitlines()[0] in capsys.readouterr().out


def test_the_throughput_ratio_is_the_median_rounds() -> None:
    rounds = [Round(6.0, 2.0, (2, 2)), Round(4.0, 1.0, (1,)), Round(5.0, 1.0, (1,))]
    found = throughput_summary(rounds, FULL)
    assert found["ratio"] == 4.0
    assert found["images_per_second"] == 5.0
    assert found["baseline_images_per_second"] == 1.0
    assert found["mean_rows_per_step"] == pytest.approx(1.33)
    json.dumps(found)


def test_the_worst_model_tells_what_switching_costs() -> None:
    cold = {
        "large": [{"load": 2.0, "solo": 1.0, "cold": 3.3}],
        "pocket": [{"load": 1.0, "solo": 1.0, "cold": 2.1}],
    }
    slow = {"usual": 0.02, "load": 4.0}
    disturbed = {
        "large": [
            {**slow, "urgent": False, "step": 0.021},
            {**slow, "urgent": True, "step": 0.03},
        ],
        "pocket": [
            {**slow, "urgent": False, "step": 0.02},
            {**slow, "urgent": True, "step": 0.022},
        ],
    }
    found = switching_summary(cold, disturbed)
    assert found["cold_seconds_over_load"] == 1.1
    assert found["steps_disturbed"] == 1.05
    assert found["steps_disturbed_urgent"] == 1.5
    json.dumps(found)


def test_a_step_starts_when_the_one_before_it_ends() -> None:
    ends = [10.0, 11.0, 12.0, 13.0]
    assert start_of_step(12.001, ends) == 11.0
    assert start_of_step(11.999, ends) == 11.0
    assert start_of_step(13.2, ends) == 12.0


def test_a_step_before_all_others_has_no_start() -> None:
    with pytest.raises(ValueError, match="no step before"):
        start_of_step(9.0, [10.0, 11.0])


def test_steps_to_join_are_counted_from_the_ready_node() -> None:
    arrival = Arrival(
        submitted_at=9.0,
        ready_at=10.5,
        first_step_ended_at=13.0,
        ends=(10.0, 11.0, 12.0, 13.0),
        rows=(9, 9),
    )
    found = joining_summary([arrival], Difference(0, 4, 0, 0, 0))
    assert found["p95_steps_to_join"] == 1.5
    assert found["p95_steps_from_submission"] == 3.0
    assert found["fewest_rows"] == 9
    json.dumps(found)


def test_of_makespans_the_worst_of_the_optimal_plan_counts() -> None:
    found = plan_summary([(1.0, Rule(1.0, 2.0, 3.0)), (1.0, Rule(1.5, 1.0, 2.0))])
    assert found["optimal_over_bruteforce"] == 1.0
    assert found["greedy_over_bruteforce_mean"] == 1.25
    assert found["greedy_over_bruteforce_worst"] == 1.5
    json.dumps(found)
