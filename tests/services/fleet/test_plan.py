import json
from pathlib import Path

import pytest

from services.fleet.plan.processes import (
    FleetOptions,
    ProcessSpec,
    crew_of,
    default_controls,
    default_models,
    given_twice,
    parse_most,
    parse_replicas,
    plan_processes,
    served_models,
)
from shared.config import Settings
from shared.errors import InvalidRequest
from shared.services import SERVICES
from shared.shipped import DEFAULT_MODEL, MODELS


def plan(
    cores: int = 2, replicas: dict[str, int] | None = None, **inherited: str
) -> dict[str, ProcessSpec]:
    options = FleetOptions(models=("some/model",), replicas=replicas or {}, cores=cores)
    return {spec.name: spec for spec in plan_processes(options, "nats://here:1", inherited)}


STARTED = set(SERVICES) - {"placement"}


def threads(specs: dict[str, ProcessSpec]) -> dict[str, int]:
    return {name: int(spec.environment["DARKROOM_THREADS"]) for name, spec in specs.items()}


def test_a_fleet_is_one_process_of_every_service() -> None:
    """Placement is there for who asks for it."""
    assert tuple(plan()) == tuple(name for name in SERVICES if name in STARTED)
    assert tuple(plan(replicas={"placement": 1})) == tuple(SERVICES)


def test_denoising_gets_every_core_but_one_and_the_rest_half() -> None:
    assert threads(plan(cores=8)) == {
        "gateway": 1,
        "planner": 1,
        "prompt_encoder": 4,
        "controlnet": 4,
        "denoiser": 7,
        "vae": 4,
    }


def test_replicas_share_the_cores_and_are_numbered() -> None:
    found = threads(plan(cores=8, replicas={"denoiser": 2, "controlnet": 2, "vae": 0}))
    assert found["denoiser-1"] == found["denoiser-2"] == 3
    assert found["controlnet-1"] == found["controlnet-2"] == 2
    assert "vae" not in found


def test_a_service_that_is_scaled_is_planned_at_its_most_and_begins_with_its_replicas() -> None:
    options = FleetOptions(
        models=("some/model",), replicas={"denoiser": 2}, most={"denoiser": 4, "vae": 2}, cores=8
    )
    planned = plan_processes(options, "nats://here:1", {})
    crew = crew_of(options, planned)
    assert [spec.name for spec in crew.spare] == ["denoiser-3", "denoiser-4", "vae-2"]
    assert {"denoiser-1", "denoiser-2", "vae-1", "placement"} <= {spec.name for spec in crew.begin}
    assert threads({spec.name: spec for spec in planned})["denoiser-1"] == 1
    told = Settings.from_env(crew.begin[0].environment)
    assert told.fleet == options.name
    assert json.loads(told.fleet_limits) == {"denoiser": [1, 4], "vae": [1, 2]}


def test_a_fleet_that_is_not_scaled_says_nothing_of_it() -> None:
    assert {spec.environment["DARKROOM_FLEET"] for spec in plan().values()} == {""}


@pytest.mark.parametrize(
    ("most", "replicas", "field"),
    [
        (["gateway=2"], {}, "--max-processes"),
        (["denoiser=0"], {}, "--max-processes"),
        (["denoiser=2"], {"denoiser": 3}, "--replicas"),
        (["denoiser=2"], {"denoiser": 0}, "--replicas"),
    ],
)
def test_a_most_that_makes_no_sense_is_refused(
    most: list[str], replicas: dict[str, int], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_most(most, replicas, apart=False)
    assert caught.value.fields["field"] == field


def test_more_replicas_than_cores_get_a_thread_each() -> None:
    assert threads(plan(cores=2, replicas={"denoiser": 4}))["denoiser-4"] == 1


def test_threads_that_a_user_chose_go_before_ours() -> None:
    specs = plan(cores=8, DARKROOM_THREADS="3")
    assert set(threads(specs).values()) == {3}
    assert specs["vae"].environment["OMP_NUM_THREADS"] == "3"


def test_the_environment_is_handed_on_with_ours_in_front() -> None:
    environment = plan(HOME="/home/me", DARKROOM_NATS_URL="nats://elsewhere:2")["vae"].environment
    assert environment["HOME"] == "/home/me"
    assert environment["DARKROOM_NATS_URL"] == "nats://here:1"
    assert environment["DARKROOM_MODELS"] == "some/model"


def test_model_directories_are_handed_on_as_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = plan_processes(FleetOptions(models=("mine", "org/hub")), "nats://here:1", {})[0]
    assert spec.environment["DARKROOM_MODELS"] == f"{tmp_path}/mine:org/hub"


def test_the_model_that_ships_is_served_when_none_is_named() -> None:
    assert [Path(model).name for model in default_models({})] == ["pocket-sdxl"]
    assert default_models({"DARKROOM_MODELS": "a:b"}) == ("a", "b")


def test_a_model_that_ships_is_served_by_its_name_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert served_models(["pocket-flux"], {}) == (MODELS["pocket-flux"],)
    assert served_models([], {"DARKROOM_MODELS": "pocket-flux:org/hub"}) == (
        MODELS["pocket-flux"],
        "org/hub",
    )
    assert Settings(models="pocket-flux:org/hub").sources == (MODELS["pocket-flux"], "org/hub")
    (tmp_path / "pocket-flux").mkdir()
    assert served_models(["pocket-flux"], {}) == (f"{tmp_path}/pocket-flux",)


@pytest.mark.parametrize(
    ("given", "environ", "option"),
    [
        (["no/such/directory"], {}, "--model: 'no/such/directory'"),
        ([], {"DARKROOM_MODELS": "nothing"}, "DARKROOM_MODELS: 'nothing'"),
    ],
)
def test_what_cannot_be_a_model_is_refused_by_the_name_of_its_option(
    given: list[str], environ: dict[str, str], option: str
) -> None:
    with pytest.raises(InvalidRequest, match="pocket-flux, pocket-sdxl") as refused:
        served_models(given, environ)
    assert str(refused.value).startswith(option)


def test_services_find_what_ships_from_any_directory() -> None:
    settings = Settings()
    found = (*settings.sources, *settings.lora_directories, *settings.control_sources)
    assert all(Path(source).is_absolute() and Path(source).is_dir() for source in found)


def test_the_controlnets_that_ship_are_held_when_none_is_named() -> None:
    assert [Path(source).parts[-2:] for source in default_controls({})] == [("models", "controls")]
    assert plan()["vae"].environment["DARKROOM_CONTROLS"] == default_controls({})[0]


def test_controlnets_are_handed_on_as_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    environment = plan(DARKROOM_CONTROLS="mine:org/hub")["planner"].environment
    assert environment["DARKROOM_CONTROLS"] == f"{tmp_path}/mine:org/hub"


def test_where_there_are_no_controlnets_no_process_waits_for_them(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for sources in ("", f"{tmp_path}/none", f"{tmp_path}/empty"):
        specs = plan(DARKROOM_CONTROLS=sources, replicas={"controlnet": 2})
        assert {spec.service for spec in specs.values()} == STARTED - {"controlnet"}
        assert specs["planner"].environment["DARKROOM_CONTROLS"] == sources
    assert "controlnet" in plan(DARKROOM_CONTROLS="org/hub")


def test_controlnets_can_have_a_process_each_and_replicas_of_it() -> None:
    options = FleetOptions(replicas={"controlnet": 2}, controls_apart=True, cores=16)
    specs = [s for s in plan_processes(options, "nats://here:1", {}) if s.service == "controlnet"]
    held = {spec.name: spec.environment["DARKROOM_CONTROLS"] for spec in specs}
    assert {name: Path(source).name for name, source in held.items()} == {
        f"controlnet-{name}-{number}": name
        for name in ("blocks", "edges", "shading")
        for number in (1, 2)
    }
    assert {spec.environment["DARKROOM_THREADS"] for spec in specs} == {"1"}
    planner = plan_processes(options, "nats://here:1", {})[1]
    assert planner.environment["DARKROOM_CONTROLS"] == default_controls({})[0]


@pytest.mark.parametrize("text", ["denoiser", "denoiser=", "denoiser=-1", "oven=1", "vae=65"])
def test_replicas_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--replicas"):
        parse_replicas([text])


def test_a_model_that_is_named_twice_is_served_once_and_that_is_said() -> None:
    given = ["pocket-sdxl", "pocket-flux", DEFAULT_MODEL]
    assert served_models(given, {}) == (DEFAULT_MODEL, MODELS["pocket-flux"])
    assert given_twice(given, {}) == [f"{DEFAULT_MODEL} is given 2 times, and served once"]
    assert not given_twice((), {})
