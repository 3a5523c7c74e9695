"""The output of one supervised process: a file of bounded size, and its last lines for messages."""

import sys
from pathlib import Path

ENDED = "fleet: "
"""Begins what is noted here of a process, and so ends what it said."""
LOG_BYTES = 4 * 1024 * 1024
"""A log that grew over this becomes `<name>.log.1`, replacing the one before: two files at most."""


class ProcessLog:
    """Writes to `path`; with `echo`, to this process's standard error as well."""

    def __init__(self, path: Path, label: str, echo: bool = False, bound: int = LOG_BYTES) -> None:
        self.path = path
        self._label = label
        self._echo = echo
        self._bound = bound
        self._file = path.open("ab")

    def write(self, output: bytes) -> None:
        self._file.write(output)
        self._file.flush()
        if self._echo:
            for line in output.decode(errors="replace").splitlines():
                print(f"{self._label:>16} | {line}", file=sys.stderr, flush=True)
        if self._file.tell() > self._bound:
            self._rotate()

    def tail(self, lines: int = 20) -> str:
        """The last `lines` lines written."""
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def last_beginning(self, mark: str) -> str:
        """What follows `mark` on the last line that begins with it, of the last ones of the process
        that ended just now; empty if there is none."""
        own = self.tail().rpartition(f"\n{ENDED}")[2].splitlines()
        return next((line[len(mark) :] for line in reversed(own) if line.startswith(mark)), "")

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(self.path.with_name(self.path.name + ".1"))
        self._file = self.path.open("ab")
