"""`make demo`, and what docs/nats.md tells its readers to do, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import HANG_SECONDS
from tests.e2e.helpers.guide import ROOT, Reader, assert_shows, steps
from tests.e2e.helpers.running import RunningFleet

GUIDE = ROOT / "docs" / "nats.md"


def test_make_demo_paints_what_it_says(fleet: RunningFleet) -> None:
    """On the fleet that runs here; `test_wheel.py` renders without one."""
    done = subprocess.run(
        ["make", "-C", str(ROOT), "demo", f"VENV={sys.prefix}"],
        env=fleet.environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "out/demo.png" in done.stdout
    caption = "a large red circle left and a small blue square right on white"
    assert caption in (ROOT / "README.md").read_text()
    assert_shows(ROOT / "out" / "demo.png", caption)


def test_every_command_of_the_guide_to_nats_runs(fleet: RunningFleet, tmp_path: Path) -> None:
    reader = Reader.beginning(tmp_path, fleet.environment)
    told = [reader.follow(step) for step in steps(GUIDE) if step.kind == "program"]
    drawn, fetched, cancelled = (
        reader.follow(step) for step in steps(GUIDE) if step.kind == "command"
    )
    assert told == ["", "", ""]
    assert "image 0: step 12 of 12" in drawn
    assert fetched.startswith("done: ")
    assert cancelled == "done\n"
    assert_shows(tmp_path / "image-0.png", "a large red circle left on white")


def test_programs_of_the_guide_need_nothing_of_ours() -> None:
    programs = {step.file: step.text for step in steps(GUIDE) if step.kind == "program"}
    assert set(programs) == {"draw.py", "fetch.py", "cancel.py"}
    for source in programs.values():
        imported = set(re.findall(r"^import (\w+)", source, re.MULTILINE))
        assert imported <= {"asyncio", "pathlib", "sys", "uuid", "msgpack", "nats"}
        assert "from " not in re.sub(r"#.*", "", source)
