"""How urgent a load's own thread is beside what computes."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

NICENESS: Final = 10
"""By how much the thread, and those that it starts, are less urgent than the rest of the
process."""
SWITCH_SECONDS: Final = 0.0005
"""After which it lets others have the interpreter, while it runs."""


@contextlib.contextmanager
def beside_others(patient: bool) -> Iterator[None]:
    """For a thread that computes within beside others of its process, and ends soon after.
    `patient`: nobody waits for what it does. It steps aside for the others, and cannot become
    urgent again."""
    if patient and sys.platform == "linux":  # elsewhere threads have no priorities of their own
        now = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, now + NICENESS))
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, SWITCH_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
