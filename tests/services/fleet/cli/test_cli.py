"""The command line: what it refuses, and how it says so."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.fleet.cli.app import app
from services.fleet.cli.options import parse_size
from services.fleet.cli.render import file_names, image_format
from shared.errors import InvalidRequest
from tests.helpers.models import EMPTY

MODEL = {
    "model_index.json": {"_class_name": "StableDiffusionXLPipeline"},
    "scheduler/scheduler_config.json": {
        "_class_name": "EulerDiscreteScheduler",
        "prediction_type": "epsilon",
    },
    "unet/config.json": {
        "sample_size": 16,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 36,
    },
    "vae/config.json": {"block_out_channels": [32, 64, 64, 64]},
    **{f"{folder}/config.json": {} for folder in ("text_encoder", "text_encoder_2")},
    **{f"{folder}/tokenizer.json": {} for folder in ("tokenizer", "tokenizer_2")},
}
"""What a catalogue reads of a model: 128x128 pixels, in multiples of 8."""


@pytest.fixture(autouse=True)
def _no_fleet_and_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in MODEL.items():
        file = tmp_path / "toy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    for folder in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (tmp_path / "toy" / folder / "model.safetensors").write_bytes(EMPTY)
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path / "toy"))
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path / "state"))


def darkroom(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--size", "big"), "--size"),
        (("--size", "128"), "--size"),
        (("--size", "13x128"), "width"),
        (("--out", "picture.bmp"), "--out"),
        (("-n", "0"), "-n"),
        (("-n", "11"), "-n"),
        (("--seed", "9" * 30), "--seed"),
        (("--size", "9" * 5000 + "x8"), "--size"),
        (("--steps", "0"), "--steps"),
        (("--steps", "many"), "--steps"),
        (("--guidance", "-1"), "--guidance"),
        (("--seed", "-2"), "--seed"),
        (("--sampler", "magic"), "sampler"),
        (("--control", "edges"), "--control"),
        (("--control", "edges=/no/such/file.png"), "--control"),
        (("--control", f"edges={__file__}"), "controls"),
        (("--control-lag", "2"), "--control-lag"),
        (("--model", "nobody"), "model"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_bad_usage_exits_2_and_names_the_field(arguments: tuple[str, ...], named: str) -> None:
    result = darkroom("render", "a red circle", *arguments)
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stdout == ""


def test_a_missing_prompt_is_bad_usage() -> None:
    result = darkroom("render")
    assert result.exit_code == 2
    assert "prompt" in result.stderr


def test_an_empty_prompt_is_bad_usage() -> None:
    assert darkroom("render", "").exit_code == 2


@pytest.mark.parametrize("arguments", [("--replicas", "oven=2"), ("--port", "70000")])
def test_up_refuses_what_makes_no_sense(arguments: tuple[str, ...]) -> None:
    result = darkroom("up", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_a_model_that_is_none_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = darkroom("render", "a red circle", "--model", str(tmp_path / "empty"))
    assert result.exit_code == 1
    assert "not a diffusers directory" in result.stderr


def test_status_without_a_fleet_fails_and_says_how_to_start_one() -> None:
    result = darkroom("status")
    assert result.exit_code == 1
    assert "darkroom up" in result.stderr


def test_an_address_where_nobody_listens_fails() -> None:
    result = darkroom("status", "--url", "nats://127.0.0.1:9")
    assert result.exit_code == 1
    assert "no connection" in result.stderr


def test_models_lists_what_a_new_fleet_would_serve() -> None:
    result = darkroom("models")
    assert result.exit_code == 0
    assert "toy" in result.stdout
    assert "128x128" in result.stdout
    assert "controls  none" in result.stdout  # those that ship are of other sizes


def test_models_lists_the_controlnets_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, config in (("fits", {}), ("else", {"in_channels": 9})):
        (tmp_path / "controls" / name).mkdir(parents=True)
        network = MODEL["unet/config.json"]
        assert isinstance(network, dict)
        text = json.dumps({"_class_name": "ControlNetModel", **network, **config})
        (tmp_path / "controls" / name / "config.json").write_text(text)
    monkeypatch.setenv("DARKROOM_CONTROLS", str(tmp_path / "controls"))
    result = darkroom("models")
    assert "controls  fits\n" in result.stdout


@pytest.mark.parametrize(("text", "size"), [("512x768", (512, 768)), ("64X64", (64, 64))])
def test_a_size_is_width_by_height(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "64", "64x", "64x64x64", "-1x64", "a x b"])
def test_other_sizes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match="512x512"):
        parse_size(text)


def test_the_files_suffix_chooses_the_format() -> None:
    assert image_format(Path("a.JPG")) == "jpeg"


def test_several_images_are_numbered() -> None:
    assert file_names(Path("out/a.png"), 1) == (Path("out/a.png"),)
    assert file_names(Path("out/a.png"), 2) == (Path("out/a-0.png"), Path("out/a-1.png"))
