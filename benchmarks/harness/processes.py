"""Processes of one's own for as long as a context is open, and how much processor time and memory
they use. Linux."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from shared.errors import Misconfigured
from shared.host.die_with_parent import command_that_dies_with_us

STOP_SECONDS: Final = 10.0
_KIB: Final = 1024
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12
"""Places in /proc/PID/stat after the name, which may contain anything (proc(5): utime, stime)."""


@asynccontextmanager
async def child(*command: str, **options: Any) -> AsyncIterator[Process]:
    """`command` runs, for no longer than this process does. `options`: of
    `asyncio.create_subprocess_exec`. It is asked to end at the end, and killed if it does not."""
    process = await asyncio.create_subprocess_exec(
        *command_that_dies_with_us(command, signal.SIGTERM), **options
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def first_line(process: Process) -> str:
    """That it writes to its standard output, a pipe; empty if it ends before."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


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


@dataclass(frozen=True, slots=True)
class Resident:
    """In bytes (proc(5), smaps): `rss`: pages that are there; `pss`: each of them divided by how
    many processes have it; `own`: those that are of no file, or no more since they were written
    to."""

    rss: int
    pss: int
    own: int

    @classmethod
    def of_process(cls, pid: int) -> Self:
        """All of process `pid`."""
        return cls.summed(Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())

    @classmethod
    def of_files(cls, pid: int, directory: Path) -> Self:
        """What process `pid` has mapped of files below `directory`, with what it made of them."""
        return cls.summed(Path(f"/proc/{pid}/smaps").read_text().splitlines(), directory)

    @classmethod
    def summed(cls, lines: Iterable[str], below: Path | None = None) -> Self:
        """Of the mappings in the lines of such a file; those of files `below` a directory alone, if
        there is one."""
        found = dict.fromkeys(("Rss", "Pss", "Anonymous"), 0)
        counting = False
        for line in lines:
            name, *values = line.split()
            if not name.endswith(":"):  # the heading of a mapping: addresses, ..., its file
                counting = below is None or below in Path(line[line.find("/") :]).parents
            elif counting and name.rstrip(":") in found:
                found[name.rstrip(":")] += int(values[0]) * _KIB
        return cls(found["Rss"], found["Pss"], found["Anonymous"])
