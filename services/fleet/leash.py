"""`python leash.py PARENT_PID COMMAND...`: become COMMAND, and die with whoever started it.

The kernel kills the command when its parent ends, however it ends, so that nothing outlives a fleet
that was killed by -9. The process id stays the same. Standard library only: it runs before anything
is imported. Linux; elsewhere it only becomes COMMAND.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"{command[0]}: the process that started it is gone")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
