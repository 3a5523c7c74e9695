"""Become the command in `argv[3:]`; when the parent, process `argv[2]`, ends, get signal `argv[1]`.

The kernel sends it however the parent ends, so that nothing outlives a fleet killed by -9. Run as a
file, before anything is imported; the process id stays the same. `preexec_fn` would do this between
fork and exec, where a process with threads must not run Python. Linux; elsewhere it only becomes
the command.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def command_that_dies_with_us(command: tuple[str, ...], number: signal.Signals) -> tuple[str, ...]:
    """A command line that starts `command` (with an absolute path) on this leash."""
    launcher = str(Path(__file__).resolve())
    return (sys.executable, "-IS", launcher, str(int(number)), str(os.getpid()), *command)


def main(number: int, parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the request was made
        sys.exit(f"{command[0]}: the process that started it is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
