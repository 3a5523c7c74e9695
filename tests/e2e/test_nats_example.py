"""The programs in docs/nats.md, as they stand there, against real services."""

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.conftest import HANG_SECONDS
from tests.e2e.conftest import RunningFleet

GUIDE = Path(__file__).parents[2] / "docs" / "nats.md"
PROMPT = "a large red circle left on white"


def programs() -> dict[str, str]:
    """Source by file name; each program's first line names it."""
    blocks = re.findall(r"```python\n(# (\w+\.py): .*?)```", GUIDE.read_text(), re.DOTALL)
    return {name: source for source, name in blocks}


def execute(directory: Path, name: str, *arguments: str) -> str:
    """Run a program of the guide in `directory`, alone; returns what it printed."""
    (directory / name).write_text(programs()[name])
    done = subprocess.run(
        [sys.executable, "-I", name, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_guide_has_the_programs_it_speaks_of_and_they_import_nothing_of_ours() -> None:
    found = programs()
    assert set(found) == {"draw.py", "fetch.py", "cancel.py"}
    for source in found.values():
        imported = set(re.findall(r"^import (\w+)", source, re.MULTILINE))
        assert imported <= {"asyncio", "pathlib", "sys", "uuid", "msgpack", "nats"}
        assert "from " not in re.sub(r"#.*", "", source)


def test_a_job_can_be_submitted_with_nothing_but_nats_py_and_msgpack(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    told = execute(tmp_path, "draw.py", fleet.nats_url, PROMPT)
    assert "image 0: step 12 of 12" in told
    drawn = (tmp_path / "image-0.png").read_bytes()
    with Image.open(tmp_path / "image-0.png") as picture:
        assert f"{picture.width}x{picture.height}, seed 7" in told
    job_id = told.split()[1]

    (tmp_path / "image-0.png").unlink()
    assert execute(tmp_path, "fetch.py", fleet.nats_url, job_id).startswith("done: ")
    assert (tmp_path / "image-0.png").read_bytes() == drawn
    assert execute(tmp_path, "cancel.py", fleet.nats_url, job_id) == "done\n"
