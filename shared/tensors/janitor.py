"""Removes the arenas of processes that are gone, and nothing else.

A dead owner's arena stays readable for a grace period: the checkpoint in it is what another
process resumes a row from. When the period began is written into the arena itself, by whichever
janitor finds it first, so any number of janitors may run, and none has to live long.
"""

import asyncio
import fcntl
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shared.tensors import layout, owners

GRACE_SECONDS: Final = 120.0

Verdict = Literal["keep", "mark", "remove"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at a file says about its owner."""

    locked: bool
    """Somebody holds the file's lock: the owner, a child it forked, or another janitor."""
    running: bool
    """A process with the owner's pid and start time exists."""
    orphaned_at: float
    """Unix seconds at which it was first found ownerless; 0: now is the first time."""


def decide(seen: Observation, grace_seconds: float, now: float) -> Verdict:
    """Either sign of life is enough to keep a file: the pid of an owner in another container is not
    to be seen from here, and an owner that has just made its file does not hold the lock yet."""
    if seen.locked or seen.running:
        return "keep"
    if now - (seen.orphaned_at or now) >= grace_seconds:
        return "remove"
    return "keep" if seen.orphaned_at else "mark"


def sweep(directory: Path, grace_seconds: float, now: float) -> list[Path]:
    """One round over `directory` at `now` (Unix seconds). Returns what it removed.

    Files that are no arenas of ours are never touched; a missing directory is an empty one."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory))
    except FileNotFoundError:
        return []
    paths = [directory / name for name in names if name.endswith(owners.SUFFIX)]
    return [path for path in paths if _consider(path, grace_seconds, now)]


def remove_all_of(directory: Path, now: float) -> list[Path]:
    """Remove every ownerless arena at once: for when nobody is left to resume anything."""
    return sweep(directory, 0.0, now)


async def keep_swept(
    directory: Path,
    every: float,
    clock: Callable[[], float] = time.time,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Sweep `directory` every so many seconds, until cancelled."""
    while True:
        await asyncio.to_thread(sweep, directory, grace_seconds, clock())
        await asyncio.sleep(every)


def _consider(path: Path, grace_seconds: float, now: float) -> bool:
    owner = owners.owner_of(path.name.removesuffix(owners.SUFFIX))
    if owner is None:
        return False
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # removed by another janitor, or not ours to open
        return False
    try:
        # The verdict is carried out while the lock is held, by one janitor at a time.
        seen = _observe(fd, owner)
        verdict = "keep" if seen is None else decide(seen, grace_seconds, now)
        if verdict == "mark":
            layout.mark_orphaned(fd, now)
        if verdict == "remove":
            path.unlink(missing_ok=True)
        return verdict == "remove"
    finally:
        os.close(fd)


def _observe(fd: int, owner: owners.Owner) -> Observation | None:
    """None for a file that is no arena of ours. Takes the file's lock if it is free."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Observation(locked=True, running=True, orphaned_at=0.0)
    if os.fstat(fd).st_nlink == 0:  # another janitor removed it between our open and our lock
        return None
    running = owners.is_running(owner)
    if found.st_size == 0:  # its owner died between the first two lines of making it
        return Observation(locked=False, running=running, orphaned_at=found.st_mtime)
    header = layout.read_header(fd)
    if header is None:
        return None
    return Observation(locked=False, running=running, orphaned_at=header.orphaned_at)
