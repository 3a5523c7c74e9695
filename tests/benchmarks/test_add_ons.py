"""The pure parts of the benchmarks of ControlNets and LoRAs; nothing is measured here."""

import json
import os
from dataclasses import replace

import pytest

from benchmarks.controlnet.counters import Counters
from benchmarks.controlnet.table import SIDES, Round
from benchmarks.controlnet.table import rows as controlnet_rows
from benchmarks.controlnet.table import summary as controlnet_summary
from benchmarks.harness.budget import rounds_within
from benchmarks.harness.cpu_pinning import cpu_pinning, keeping_to
from benchmarks.latent_parallel import FULL, Turn
from benchmarks.latent_parallel import summary as latent_summary
from benchmarks.swift.model import (
    Asked,
    BaselineParts,
    Devices,
    Parts,
    baseline_seconds,
    fleet_seconds,
    step_seconds,
)
from benchmarks.swift.parts import until_needed
from benchmarks.swift.sides import Drawn, Trial, late_steps
from benchmarks.swift.table import Cell, prediction
from benchmarks.swift.table import rows as swift_rows
from benchmarks.swift.table import summary as swift_summary

PARTS = Parts(
    base=1.0,
    half=0.6,
    until_needed=0.4,
    control=0.5,
    hop=0.01,
    load=0.3,
    patch=0.2,
    enc=0.1,
    vae=0.2,
    rest=0.05,
)
BASELINE = BaselineParts(base=1.1, control=0.6, lora_step=0.0, adapt=2.0, rest=0.5)
PLAIN = Asked(controls=0, loras=0, steps=10)
MOST = Asked(controls=3, loras=2, steps=10, late=2)


def test_the_denoiser_has_a_core_for_itself_and_controls_the_others() -> None:
    two, five = cpu_pinning([4, 7], controls=3), cpu_pinning(range(5), controls=3)
    assert (two.denoiser, two.controls, two.others) == (4, (7, 7, 7), frozenset({7}))
    assert (five.denoiser, five.controls, five.others) == (0, (1, 2, 3), frozenset({4}))
    assert [five.held(count) for count in range(4)] == [1, 2, 3, 4]
    assert [two.held(count) for count in range(4)] == [1, 2, 2, 2]


def test_with_one_core_everything_is_on_it() -> None:
    found = cpu_pinning([3], controls=2)
    assert (found.denoiser, found.controls, found.others) == (3, (3, 3), frozenset({3}))


def test_who_kept_to_a_core_may_use_all_of_them_afterwards() -> None:
    before = os.sched_getaffinity(0)
    only = {min(before)}
    with keeping_to(only):
        assert os.sched_getaffinity(0) == only
    assert os.sched_getaffinity(0) == before


def test_a_warm_up_and_one_round_take_place_even_without_time() -> None:
    assert list(rounds_within(0.0, 5)) == [0, 1]
    assert list(rounds_within(3600.0, 3)) == [0, 1, 2, 3]


def engine(**counts: float) -> dict[str, float]:
    names = ("rounds", "seconds", "hops", "waited", "message_bytes", "tensor_bytes")
    return {"steps": 0, **{f"control_{name}": 0.0 for name in names}, "finished": 3, **counts}


def test_questions_are_counted_between_two_looks_at_an_engine() -> None:
    before = engine(steps=5, control_rounds=2, control_seconds=1.0)
    after = engine(
        steps=15,
        control_rounds=12,
        control_seconds=5.0,
        control_hops=0.02,
        control_waited=1.0,
        control_tensor_bytes=500,
    )
    found = Counters.between(before, after)
    assert (found.steps, found.rounds) == (10, 10)
    assert found.report() == {
        "answer_ms": 400.0,
        "hop_microseconds": 2000.0,
        "waited_ms": 100.0,
        "hidden_share": 0.75,
        "message_bytes": 0,
        "tensor_bytes": 50,
    }
    assert (found + found).report() == found.report()


def test_of_two_questions_at_once_the_wait_for_the_last_one_counts() -> None:
    asked = Counters(steps=1, rounds=2, seconds=2.0, waited=0.6)
    assert asked.hidden == pytest.approx(0.4)


def test_who_asked_nothing_waited_for_nothing() -> None:
    assert set(Counters(steps=4).report().values()) == {0}


def test_added_ratios_are_medians_of_those_within_a_round() -> None:
    asked = (Counters(), Counters(5, 5, 2.0, 0.1, 0.5), Counters(5, 10, 6.0, 0.2, 2.5))
    times = [
        ((1.0, 1.1, 1.5), (1.0, 1.4, 1.8), (0.6, 0.8, 1.0)),
        ((2.0, 2.1, 3.0), (2.0, 2.8, 3.6), (1.2, 1.6, 2.0)),
        ((1.0, 1.3, 1.7), (1.0, 1.5, 1.9), (0.5, 0.7, 0.9)),
    ]
    rounds = [Round(dict(zip(SIDES, each, strict=True)), asked) for each in times]
    found = controlnet_summary(rounds)
    assert (found["added_ratio_one"], found["added_ratio_two"]) == (1.1, 1.5)
    assert found["baseline_ratio_one"] == 1.4
    assert found["baseline_all_cores_ratio_one"] == 1.333
    assert found["hop_microseconds"] == 20_000.0
    assert found["hidden_share"] == 0.75
    assert found["step_ms"]["fleet"] == [1000.0, 1300.0, 1700.0]
    table = controlnet_rows(found | {"pocket": found, "max_abs_diff": 1})
    assert max(len(line) for line in table) == 7
    json.dumps(found)


def test_a_step_waits_only_for_what_its_first_half_does_not_hide() -> None:
    one, each = Devices(), Devices(controls=3)
    assert step_seconds(PARTS, 0, one) == 1.0
    assert step_seconds(PARTS, 1, one) == pytest.approx(0.51 + 0.6)
    assert step_seconds(replace(PARTS, control=0.3), 1, one) == pytest.approx(1.0)
    assert step_seconds(PARTS, 3, one) == pytest.approx(1.51 + 0.6)
    assert step_seconds(PARTS, 3, each) == step_seconds(PARTS, 1, one)


def test_two_denoisers_take_half_of_the_guidance_each() -> None:
    assert step_seconds(PARTS, 0, Devices(denoisers=2)) == pytest.approx(0.61)
    assert step_seconds(PARTS, 1, Devices(denoisers=2)) == pytest.approx(0.51 + 0.36 + 0.01)


def test_loras_that_are_read_elsewhere_cost_what_comes_after_the_steps_that_may_lack_them() -> None:
    plain = fleet_seconds(PARTS, PLAIN, Devices())
    assert plain == pytest.approx(10.35)
    adapted = replace(PLAIN, loras=2, late=2)
    assert fleet_seconds(PARTS, adapted, Devices()) == pytest.approx(plain + 0.6 + 0.4)
    elsewhere = Devices(reads=True)
    assert fleet_seconds(PARTS, adapted, elsewhere) == pytest.approx(plain + 0.4)
    slow = replace(PARTS, load=1.5)
    assert fleet_seconds(slow, adapted, elsewhere) == pytest.approx(plain + 1.0 + 0.4)


def test_the_baseline_does_one_thing_after_another() -> None:
    assert baseline_seconds(BASELINE, PLAIN) == pytest.approx(11.5)
    assert baseline_seconds(BASELINE, MOST) == pytest.approx(0.5 + 10 * 2.9 + 4.0)


def test_more_devices_are_never_slower() -> None:
    cells = [PLAIN, replace(PLAIN, loras=1), replace(MOST, loras=0), MOST]
    few, more, most = (Devices(), Devices(controls=3, reads=True), Devices(2, 3, reads=True))
    for asked in cells:
        times = [fleet_seconds(PARTS, asked, devices) for devices in (few, more, most)]
        assert times == sorted(times, reverse=True)


def test_the_first_half_of_a_step_is_the_time_that_was_not_waited() -> None:
    asked = Counters(steps=10, rounds=30, seconds=45.0, waited=11.0)
    assert until_needed(asked, base=1.0) == pytest.approx(0.4)
    assert until_needed(asked, base=0.1) == 1.0


def test_the_outcome_says_when_the_last_lora_joined() -> None:
    exact, late = "control_lag edges: image 0", "late_lora cold_1: image 0, step 3"
    assert late_steps([]) == late_steps([exact]) == 0
    assert late_steps(["late_lora cold_0: image 0, step 2", late, exact]) == 2


def test_a_trial_foretells_an_image() -> None:
    assert Trial(adapt=2.0, step=0.5).image(steps=10) == 7.0


def cell(asked: Asked, ours: float, theirs: float) -> Cell:
    drawn = {
        "fleet": Drawn(ours, 2 * ours, late=1 if asked.loras else 0),
        "diffusers": Drawn(theirs, theirs),
        "diffusers_all_cores": Drawn(theirs / 2, theirs),
    }
    return Cell(asked, drawn, {"fleet": 2, "diffusers": 1, "diffusers_all_cores": 2})


def test_the_table_has_medians_and_its_ratio_is_that_within_a_round() -> None:
    rounds = [
        [cell(PLAIN, 10.0, 11.0), cell(MOST, 20.0, 30.0)],
        [cell(PLAIN, 12.0, 13.0), cell(MOST, 24.0, 48.0)],
        [cell(PLAIN, 11.0, 12.0), cell(MOST, 22.0, 55.0)],
    ]
    found = swift_summary(rounds)
    assert (found["ratio_3c2l"], found["ratio_3c2l_all_cores"]) == (2.0, 1.0)
    assert found["table"]["0C0L"]["fleet"]["seconds"] == 11.0
    assert found["table"]["3C2L"]["fleet"]["images_per_core_second"] == pytest.approx(1 / 44, 0.01)
    assert found["table"]["3C2L"]["diffusers"]["images_per_cpu_second"] == pytest.approx(
        1 / 48, 0.01
    )
    assert found["late_steps"] == {"3C2L": 1}


def test_the_model_shows_its_error_and_what_more_devices_change() -> None:
    cells = [PLAIN, MOST]
    found = swift_summary([[cell(PLAIN, 10.35, 11.5), cell(MOST, 20.0, 33.5)]])
    model = prediction(PARTS, BASELINE, cells, Devices(), found["table"])
    assert model["here"]["0C0L"]["fleet_error"] == 0.0
    assert model["here"]["3C2L"]["fleet_error"] == pytest.approx(22.45 / 20 - 1, abs=0.001)
    assert model["here"]["3C2L"]["diffusers_error"] == 0.0
    assert list(model["devices"]) == ["2", "4", "5"]
    ratios = [devices["ratio_3c2l"] for devices in model["devices"].values()]
    assert ratios == sorted(ratios)
    table = swift_rows(found | {"model": model})
    assert {len(line) for line in table} == {3}
    json.dumps(model)


def test_a_shared_step_is_compared_within_its_round() -> None:
    turns = [Turn(1.0, 0.6, 12.0, 9.0, 0), Turn(2.0, 1.0, 22.0, 11.0, 1), Turn(1.0, 0.4, 9.0, 6, 0)]
    engines = [{"steps": 20, "shared_steps": 15}, {"steps": 0, "shared_steps": 0}]
    found = latent_summary(turns, engines, FULL)
    assert (found["ratio"], found["job_ratio"]) == (2.0, 1.5)
    assert (found["shared_share"], found["max_abs_diff"]) == (0.75, 1)
    json.dumps(found)
