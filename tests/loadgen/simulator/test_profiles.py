"""Profiles: published ones, those of a file, and what is wrong with one."""

from pathlib import Path

import pytest

from loadgen.outcomes.outcome import RequestTemplate
from loadgen.simulator.cluster.job import wanted
from loadgen.simulator.profiles import h800
from loadgen.simulator.profiles.cost import Linear, Table, chained
from loadgen.simulator.profiles.profile import encoded, load_profile
from loadgen.simulator.systems.parts import parts
from loadgen.simulator.systems.pipelines import pipeline_seconds
from loadgen.workload.workload import Workload, duration
from shared.errors import InvalidRequest
from tests.loadgen.simulator.small import shot, small_profile


def test_a_line_has_a_fixed_part_and_one_for_each_unit() -> None:
    line = Linear(fixed=0.5, per_unit=0.25)
    assert [line.seconds(units) for units in (0, 1, 4)] == [0.0, 0.75, 1.5]


def test_a_table_is_read_between_its_points_and_beyond_them() -> None:
    table = Table(points=((1, 0.04), (2, 0.05), (4, 0.09)))
    found = [table.seconds(units) for units in (0, 0.5, 1, 1.5, 3, 4, 6)]
    assert found == pytest.approx([0.0, 0.04, 0.04, 0.045, 0.07, 0.09, 0.13])
    assert Table(points=((2, 0.1),)).seconds(4) == pytest.approx(0.2)


def test_points_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        Table(points=((2, 0.1), (1, 0.1)))


def test_components_one_after_another_take_the_sum() -> None:
    both = chained((Table(points=((1, 0.1), (4, 0.2))), Linear(fixed=0.1, per_unit=0.1)))
    assert [both.seconds(n) for n in (1, 4, 6)] == pytest.approx([0.3, 0.7, 0.97], abs=0.01)


def test_published_figures_are_as_they_were_published() -> None:
    components = h800.profile().components
    assert components["StableDiffusionXL"].cost.seconds(1) == pytest.approx(0.040, abs=0.001)
    assert components["StableDiffusionXL"].cost.seconds(4) == pytest.approx(0.089, abs=0.001)
    assert components["Flux1Dev"].cost.seconds(1) == pytest.approx(0.243, abs=0.001)
    assert components["Flux1Dev"].load_seconds == pytest.approx(2.94, abs=0.01)
    assert components["Flux1VAE"].cost.seconds(1) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("setting", h800.SETTINGS)
def test_every_setting_fits_on_its_devices_and_its_traces_ask_for_its_workflows(
    setting: str,
) -> None:
    profile = h800.of_setting(setting)
    asked = h800.served(h800.trace("4.0"), setting)
    assert {one.changes["model"] for one in asked} == set(profile.workflows)
    assert all(profile.bytes_of(name) <= profile.memory for name in profile.workflows)


def test_traces_last_as_long_as_they_say() -> None:
    for repeated in h800.TRACES:
        found = h800.trace(repeated)
        assert len(found) == int(89 * float(repeated))
        assert duration(Workload(trace=found)) == pytest.approx(120.0, abs=0.01)


def test_a_pipeline_takes_the_sum_of_its_parts() -> None:
    profile = h800.profile()
    for name in profile.workflows:
        one = wanted(shot(model=name), profile)
        whole = sum(seconds for _, seconds in parts(profile, one))
        assert pipeline_seconds(profile, [one]) == pytest.approx(whole)


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    for profile in (small_profile(), h800.profile()):
        file.write_bytes(encoded(profile))
        assert load_profile(file) == profile


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"encode": "text"', '"encode": "words"', "text, network, control, pixels"),
        ('"encode": "text"', '"encode": "pixels"', "can encode"),
        ('"type": "linear"', '"type": "curve"', "components"),
        ('"per_unit": 0.1', '"per_unit": -1', "per_unit"),
        ('"memory"', '"storage"', "storage"),
        ('"name"', "name", "one JSON object"),
    ],
)
def test_what_is_wrong_with_a_profile_is_named(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    file = tmp_path / "profile.json"
    text = encoded(small_profile()).decode()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(InvalidRequest, match=r"profile\.json") as raised:
        load_profile(file)
    assert said in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"missing\.json"):
        load_profile(tmp_path / "missing.json")


def test_what_a_request_leaves_open_is_the_workflows() -> None:
    profile = h800.profile()
    one = wanted(shot(model="sdxl"), profile)
    assert (one.steps, one.forwards, one.units) == (50, 2, 2.0)
    other = wanted(shot(model="sdxl", steps=10, guidance=1.0, width=512, height=1024), profile)
    assert (other.steps, other.forwards, other.units) == (10, 1, 0.5)
    assert RequestTemplate().model is None
    nameless = shot(model=None)
    assert wanted(nameless, profile).name == "sd3"
