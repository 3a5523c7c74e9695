"""What is wrong with the options of `darkroom up` is one sentence that names the option, and no
service is started for it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.fleet.cli.app import app
from services.fleet.plan import checks
from services.fleet.plan.processes import FleetOptions
from shared.host.exits import MARK, MISCONFIGURED
from shared.models import cards
from shared.shipped import DEFAULT_MODEL


@pytest.fixture
def busy() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with things that are of no use, where a fleet would keep its state too."""
    for name in [name for name in os.environ if name.startswith("DARKROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DARKROOM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DARKROOM_ARENA_DIR", str(tmp_path / "arenas"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, model_index in {
        "broken": "{",
        "list": "[]",
        "stranger": json.dumps({"_class_name": "StableDiffusion3Pipeline"}),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(model_index)
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(DEFAULT_MODEL, tmp_path / "weightless", ignore=weights)
    shutil.copytree(DEFAULT_MODEL, tmp_path / "odd", ignore=weights)
    (tmp_path / "odd" / "vae" / "config.json").write_text("{}")
    return tmp_path


def up(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["up", "--port", "0", *arguments])


def assert_one_sentence(result: Result, directory: Path, *named: str) -> None:
    assert result.exit_code not in (0, None)
    [line] = result.stderr.splitlines()
    for text in named:
        assert text in line
    assert "ready" not in result.stdout
    assert not list((directory / "state").glob("logs/*"))  # no service was started


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--model", "{here}/absent"), ("--model", "a directory, a hub id (OWNER/NAME)")),
        (("--model", "{here}/file"), ("--model", "a directory, a hub id (OWNER/NAME)")),
        (("--model", "{here}/empty"), ("--model", "model_index.json")),
        (("--model", "{here}/broken"), ("--model", "model_index.json")),
        (("--model", "{here}/list"), ("--model", "model_index.json")),
        (("--model", "{here}/stranger"), ("--model", "StableDiffusionXLPipeline")),
        (("--model", "{here}/weightless"), ("--model", "no weights", "unet/")),
        (("--replicas", "denoiser=many"), ("--replicas", "SERVICE=0..64")),
        (("--replicas", "oven=1"), ("--replicas", "SERVICE=0..64")),
        (("--data", "{here}/file"), ("--data", "{here}/file")),
        (("--data", "{here}/file/below"), ("--data", "Not a directory")),
        (("--keys", "{here}/file"), ("--keys", "darkroom keys")),
        (("--keys", "{here}/empty"), ("--keys", "darkroom keys")),
        (("--host", "0.0.0.0"), ("--host", "--keys")),
        (("--host", "no such host"), ("--host", "no address of this machine")),
        (("--host", "192.0.2.1"), ("--host", "no address of this machine")),
        (("--port", "{busy}"), ("--port {busy}", "in use")),
        (("--nats-port", "{busy}"), ("--nats-port {busy}", "in use")),
    ],
)
def test_an_option_of_no_use_is_named(
    here: Path, busy: int, arguments: tuple[str, ...], named: tuple[str, ...]
) -> None:
    result = up(*(text.format(here=here, busy=busy) for text in arguments))
    assert_one_sentence(result, here, *(text.format(here=here, busy=busy) for text in named))


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("DARKROOM_DTYPE", "float8", "float32, float16, bfloat16"),
        ("DARKROOM_THREADS", "x", "int"),
        ("DARKROOM_THREADS", "-1", ">= 0"),
        ("DARKROOM_MEMORY_BUDGET", "-1", ">= 0"),
        ("DARKROOM_MEMORY_BUDGET", "4GB", "int"),
        ("DARKROOM_MAX_ROWS", "0", ">= 1"),
        ("DARKROOM_ACK_WAIT", "0", "> 0"),
        ("DARKROOM_ACK_WAIT", "nan", "'nan'"),
        ("DARKROOM_HTTP_PORT", "70000", "<= 65535"),
        ("DARKROOM_LORAS", "{here}/absent", "{here}/absent"),
        ("DARKROOM_CONTROLS", "{here}/absent", "{here}/absent"),
        ("DARKROOM_MODEL_ALIASES", "gpt-image-1", "ALIAS=MODEL"),
        ("DARKROOM_MODEL_ALIASES", "a=absent", "absent is not served"),
        ("DARKROOM_ARENA_DIR", "{here}/file", "not a directory"),
        ("DARKROOM_ARENA_BYTES", str(2**60), "DARKROOM_ARENA_BYTES"),
    ],
)
def test_a_setting_of_no_use_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value.format(here=here))
    assert_one_sentence(up(), here, variable, named.format(here=here))


def test_files_of_a_model_that_do_not_fit_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "weight_bytes", lambda component: 1)
    assert_one_sentence(up("--model", f"{here}/odd"), here, "--model", "block_out_channels")


def test_the_same_options_without_a_fault_pass(here: Path) -> None:
    options = FleetOptions(models=(DEFAULT_MODEL,))
    checks.refuse_unusable(options, checks.free_port("127.0.0.1"), os.environ)


def test_a_service_alone_ends_in_the_same_sentence(here: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "services.planner"],
        env={**os.environ, "DARKROOM_THREADS": "x"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == MISCONFIGURED
    assert ended.stderr == f"{MARK}DARKROOM_THREADS='x': Expected `int`, got `str`\n"
