"""What other programs see a process called."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.host.die_with_parent import prctl

PR_SET_NAME: Final = 15
NAME_BYTES: Final = 15
"""Of a thread's name; the kernel cuts it there."""
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 48, 49
"""Fields of /proc/PID/stat, counted from 1: where the command line lies in memory."""


def set_title(name: str, command: Sequence[str]) -> None:
    """`top` and `ps` show `name` and `command`, as far as the command line with which this process
    was started has room for it. Linux."""
    prctl(PR_SET_NAME, name.encode()[:NAME_BYTES])
    begin, end = _command_line()
    if end - begin > 1:
        shown = b"\0".join(word.encode() for word in command)[: end - begin - 1]
        # The last byte stays 0: otherwise the environment would be shown as well.
        ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)


def _command_line() -> tuple[int, int]:
    """Its first address and the one behind its last; both 0 if the kernel does not tell."""
    line = Path("/proc/self/stat").read_text()
    fields = line.rpartition(")")[2].split()  # the third and those after it
    return int(fields[_ARGUMENTS_BEGIN - 3]), int(fields[_ARGUMENTS_END - 3])
