"""In which order tests run, and which of them stay together in one process of tests.

A unit is a file: its tests share what its fixtures made. Files that share a fleet are one unit.
Long units begin first, so that no process of tests is left alone with one at the end.
"""

from collections.abc import Sequence
from typing import Final

FLEETS: Final = {
    "tests/e2e/components/test_scaling.py": "tests/e2e, scaled",
    "tests/e2e/test_keys.py": "tests/e2e, secured",
    "tests/e2e/test_pairs.py": "tests/e2e, secured",
    "tests/e2e/test_readme.py": "tests/e2e/test_readme.py",
    "tests/e2e/test_start_errors.py": "tests/e2e/test_start_errors.py",
    "tests/e2e/test_wheel.py": "tests/e2e/test_wheel.py",
    "tests/chaos/test_short_alone.py": "tests/chaos, alone",
    "tests/chaos/test_mutants.py": "tests/chaos, alone",
}
"""File -> unit, where that is not the file, and not `tests/e2e` for all that is below it."""
FIRST: Final = (
    "tests/e2e/",
    "tests/chaos/",
    "tests/services/denoiser/",
    "tests/benchmarks/",
    "tests/families/",
    "tests/shared/policy/",
)
"""Where the long units are; the rest is short."""


def unit_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return FLEETS.get(file, "tests/e2e" if file.startswith("tests/e2e/") else file)


def in_order(nodeids: Sequence[str]) -> list[int]:
    """Indices of `nodeids`, those of long units first, each unit in one piece."""

    def rank(index: int) -> tuple[int, str]:
        place = next((k for k, start in enumerate(FIRST) if nodeids[index].startswith(start)), 9)
        return place, unit_of(nodeids[index])

    return sorted(range(len(nodeids)), key=rank)
