"""What a test may need of its machine. It is marked with the name, runs where that is there, and is
skipped with the reason elsewhere."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

NEEDS: Final[Mapping[str, Callable[[], bool]]] = {
    "chromium": lambda: any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    "linux": lambda: sys.platform == "linux",
    "root": lambda: os.geteuid() == 0,
}


def missing(markers: Iterable[str]) -> list[str]:
    """Of the names of a test's markers, those of what is not here."""
    return sorted(name for name in set(markers) & NEEDS.keys() if not NEEDS[name]())
