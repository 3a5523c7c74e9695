"""The README's first command, as it stands there."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from pocket.captions import parse
from pocket.verify import read, score
from tests.conftest import HANG_SECONDS
from tests.e2e.conftest import processes_with

ROOT = Path(__file__).parents[2]
PROMPT = "a large red circle left and a small blue square right on white"


def test_make_demo_paints_what_it_says_and_leaves_nothing_behind() -> None:
    with (
        tempfile.TemporaryDirectory() as state,
        tempfile.TemporaryDirectory(prefix="darkroom-test-", dir="/dev/shm") as arenas,
    ):
        environment = {
            **os.environ,
            "DARKROOM_STATE_DIR": f"{state}/state",
            "DARKROOM_ARENA_DIR": arenas,
        }
        done = subprocess.run(
            ["make", "-C", str(ROOT), "demo", f"VENV={sys.prefix}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        assert "out/demo.png" in done.stdout
        with Image.open(ROOT / "out" / "demo.png") as picture:
            seen = read(np.asarray(picture.convert("RGB")))
        assert all(all(right) for right in score(parse(PROMPT), seen).values()), seen
        assert processes_with("DARKROOM_STATE_DIR", environment["DARKROOM_STATE_DIR"]) == []
        assert list(Path(arenas).iterdir()) == []
