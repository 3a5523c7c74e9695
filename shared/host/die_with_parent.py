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


def die_with(parent: int, number: int) -> None:
    """This process gets signal `number` when `parent` ends, and ends now if that was before."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2). On Linux; elsewhere it does nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def main(number: int, parent: int, command: list[str]) -> None:
    die_with(parent, number)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
