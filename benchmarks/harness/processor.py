"""How much processor time processes have used. Linux."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shared.errors import Misconfigured

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12
"""Places in /proc/PID/stat after the name, which may contain anything (proc(5): utime, stime)."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all threads of `pids` since they started. Raises `Misconfigured` if
    one of them is gone: a process that was started again has lost its count."""
    return sum(_of(pid) for pid in pids)


def _of(pid: int) -> float:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        raise Misconfigured(f"process {pid} has ended while it was measured") from error
    fields = line.rsplit(")", 1)[1].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
