"""The whole as a newcomer meets it: the command line, real processes, the model that ships."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from PIL import Image

from tests.conftest import HANG_SECONDS, until
from tests.e2e.helpers.running import DARKROOM, RunningFleet

PROMPT = "a large red circle left and a small blue square right on white"


def assert_is_picture(file: Path) -> None:
    with Image.open(file) as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (128, 128)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 1


def test_render_uses_the_fleet_that_runs(fleet: RunningFleet, tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    done = fleet.darkroom("render", PROMPT, "--steps", "3", "-n", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert not any(line.startswith("fleet:") for line in done.stdout.splitlines())
    assert "denoise: done 6/6" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "picture-1.png")
    assert_is_picture(tmp_path / "picture-0.png")
    assert_is_picture(tmp_path / "picture-1.png")


def test_the_same_seed_draws_the_same_picture(fleet: RunningFleet, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        arguments = ("--steps", "3", "--seed", "7", "--out", str(tmp_path / name))
        assert fleet.darkroom("render", PROMPT, *arguments).returncode == 0
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        assert one.tobytes() == other.tobytes()


def test_what_the_services_refuse_is_bad_usage(fleet: RunningFleet, tmp_path: Path) -> None:
    done = fleet.darkroom("render", PROMPT, "--size", "100x128", "--out", str(tmp_path / "a.png"))
    assert done.returncode == 2
    assert "width" in done.stderr
    assert not (tmp_path / "a.png").exists()


def test_a_url_chooses_the_fleet(fleet: RunningFleet, tmp_path: Path) -> None:
    other = {**fleet.environment, "DARKROOM_STATE_DIR": str(tmp_path / "other")}
    elsewhere = replace(fleet, environment=other)
    out = str(tmp_path / "a.png")
    assert "denoiser" in elsewhere.darkroom("status", "--url", fleet.nats_url).stdout
    done = elsewhere.darkroom(
        "render", PROMPT, "--steps", "2", "--url", fleet.nats_url, "--out", out
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_cancels_the_job_and_leaves(fleet: RunningFleet, tmp_path: Path) -> None:
    out = tmp_path / "never.png"
    with (
        fleet.hold("step-2@denoiser"),
        subprocess.Popen(
            [*DARKROOM, "render", PROMPT, "--steps", "4", "--out", str(out)],
            env=fleet.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as render,
    ):
        assert render.stdout is not None
        for line in render.stdout:
            if line.startswith("denoise: running 2/"):
                break
        render.send_signal(signal.SIGINT)
        assert render.wait(HANG_SECONDS) == 130
    assert not out.exists()

    until(lambda: "nodes waiting or running: 0" in fleet.darkroom("status").stdout)


def test_a_second_fleet_is_refused_while_one_runs(fleet: RunningFleet) -> None:
    done = fleet.darkroom("up", "--port", "0")
    assert done.returncode == 1
    assert "runs already" in done.stderr
