"""Orphans of this process's descendants become its own children."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.host.die_with_parent import prctl

PR_SET_CHILD_SUBREAPER: Final = 36
_adopting = 0
"""How many contexts are open."""


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """While it is open in this process, at least once: see `PR_SET_CHILD_SUBREAPER` of prctl(2)."""
    global _adopting
    _adopting += 1
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _adopting -= 1
        if not _adopting:
            prctl(PR_SET_CHILD_SUBREAPER, 0)
