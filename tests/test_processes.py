"""Tests in several processes, forked from one that has collected them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANG_SECONDS
from tests.processes import units_of

ROOT = Path(__file__).parent.parent
COMMAND = (
    *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rsE"),
    *("--processes", "2", "-c", os.devnull),
)
CONFTEST = "from tests.processes import pytest_addoption, pytest_runtestloop\n"
KINDS = """
import os, pytest

pids = []
LEADER = os.getpid()

def test_first():
    print("said by the first")
    assert os.getpid() != LEADER
    pids.append(os.getpid())

def test_second(tmp_path):
    assert pids == [os.getpid()]
    print("said by the second")
    assert tmp_path.parent.name.startswith("process-")
    assert False, "this one fails"

@pytest.mark.skip(reason="this one is skipped")
def test_third(): pass
"""
BESIDE = """
from pathlib import Path
import time

def test_meets_the_other():
    Path("{own}").touch()
    while not Path("{other}").exists():
        time.sleep(0.01)
"""
TEARDOWN = """
import pytest

@pytest.fixture(scope="session")
def held():
    yield
    raise ValueError("it cannot be given back")

def test_holds(held): pass
"""
CRASH = """
import os
def test_goes_well(): pass
def test_crashes(): os._exit(7)
def test_is_behind_it(): pass
"""
CTRL_C = """
import os, pytest, signal, time
from pathlib import Path

@pytest.fixture(scope="session")
def held():
    yield
    Path("given-back").touch()

def test_is_interrupted(held):
    os.kill(os.getppid(), signal.SIGINT)
    while True:
        time.sleep(0.01)
"""


def told(here: Path, *options: str, **files: str) -> tuple[int, str]:
    """Exit status and output of pytest in two processes."""
    (here / "conftest.py").write_text(CONFTEST)
    for name, code in files.items():
        (here / f"{name}.py").write_text(code)
    done = subprocess.run(
        [*COMMAND, "--rootdir", here, *options],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    return done.returncode, done.stdout + done.stderr


def test_units_are_indices_of_tests_that_stay_together() -> None:
    nodeids = ["tests/a.py::one", "tests/a.py::two", "tests/e2e/test_b.py::one", "tests/c.py::one"]
    assert units_of(nodeids) == [[0, 1], [2], [3]]


def test_reports_are_those_of_one_process_and_a_unit_stays_in_one(tmp_path: Path) -> None:
    status, said = told(tmp_path, test_kinds=KINDS, test_teardown=TEARDOWN)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 2 passed, 1 skipped, 1 error" in said
    assert "this one is skipped" in said
    assert "this one fails" in said
    assert "said by the second" in said
    assert "said by the first" not in said
    assert "it cannot be given back" in said


def test_units_run_side_by_side(tmp_path: Path) -> None:
    first, second = (BESIDE.format(own=own, other=other) for own, other in (("a", "b"), ("b", "a")))
    status, said = told(tmp_path, test_first=first, test_second=second)
    assert status == pytest.ExitCode.OK, said
    assert "2 passed" in said


def test_a_process_that_crashes_is_a_failure_of_its_test_and_names_what_was_left_out(
    tmp_path: Path,
) -> None:
    status, said = told(tmp_path, test_crash=CRASH, test_other="def test_is_run(): pass")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 2 passed" in said
    assert "test_crashes" in said
    assert "ended with 7; 1 tests behind it were not run, test_crash.py::test_is_behind_it" in said


def test_ctrl_c_ends_all_and_fixtures_are_given_back(tmp_path: Path) -> None:
    status, said = told(tmp_path, test_ctrl_c=CTRL_C, test_other="def test_is_run(): pass")
    assert status == pytest.ExitCode.INTERRUPTED, said
    assert (tmp_path / "given-back").exists()


def test_the_first_failure_ends_all_where_that_is_asked_for(tmp_path: Path) -> None:
    files = {f"test_{name}": "def test_fails(): assert False" for name in "abcd"}
    status, said = told(tmp_path, "-x", **files)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "stopping after 1 failures" in said
