"""What only a service can find wrong reaches whoever started the fleet as its one sentence."""

import os
import subprocess
from pathlib import Path

import pytest

from shared.services import SERVICES
from tests.conftest import HANG_SECONDS
from tests.e2e.helpers.running import DARKROOM


def only(*services: str) -> list[str]:
    """Options of a fleet of these."""
    others = [name for name in SERVICES if name not in services]
    return [word for name in others for word in ("--replicas", f"{name}=0")]


@pytest.mark.parametrize(
    ("variable", "value", "options"),
    [
        ("DARKROOM_MEMORY_BUDGET", "200000000", only("planner", "vae")),
        ("DARKROOM_DEVICE", "oven", only("vae")),
    ],
    ids=["among others", "alone"],
)
def test_a_start_that_a_service_ends_is_one_sentence_at_once(
    tmp_path: Path, variable: str, value: str, options: list[str]
) -> None:
    places = {
        "DARKROOM_STATE_DIR": str(tmp_path / "state"),
        "DARKROOM_ARENA_DIR": str(tmp_path / "arenas"),
    }
    ended = subprocess.run(
        [*DARKROOM, "up", "--port", "0", *options],
        env={**os.environ, **places, variable: value},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert ended.returncode == 1
    [sentence] = ended.stderr.splitlines()
    assert variable in sentence
    assert value in sentence
    assert "ready in" not in ended.stdout
    logs = "".join(log.read_text() for log in (tmp_path / "state" / "logs").glob("*.log"))
    assert sentence.split(": ", 2)[2] in logs
    assert not (tmp_path / "state" / "fleet.json").exists()
