"""An arena's file as its owner holds it: made, locked, grown, written, removed.

Bytes move with `pwrite` and `preadv` rather than through a mapping: a system call lets go of the
interpreter while it copies, touches no page for the first time, and cannot end in SIGBUS,
whatever numbers a handle holds and whatever happens to the file.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

from shared.errors import Misconfigured
from shared.security.private_files import private_directory
from shared.tensors import layout, owners

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})


class ArenaFile:
    """Not thread-safe, except that `write` may run beside anything but `remove`."""

    def __init__(self, path: Path, fd: int, capacity: int) -> None:
        """Only for `create`."""
        self.path = path
        self.name = path.name.removesuffix(owners.SUFFIX)
        self.capacity = capacity
        self._fd = fd
        self._start = layout.data_start(capacity)

    @classmethod
    def create(cls, directory: Path, capacity: int, service: str) -> Self:
        """Without any data yet. Raises `Misconfigured` if `directory` is not ours alone, or does
        not have room for the whole."""
        capacity = _whole_units(capacity)
        first = layout.data_start(capacity)
        owner = owners.this_process(service)
        path = directory / (owners.new_name(owner) + owners.SUFFIX)
        refuse_too_small(directory, capacity)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(fd, 0o600)  # whatever the umask is
            # A janitor may hold the lock for the moment in which it looks at the new file.
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.pwrite(fd, layout.Header(capacity, owner.pid, owner.started).pack(), 0)
            os.posix_fallocate(fd, 0, first)
        except OSError as error:
            path.unlink(missing_ok=True)
            os.close(fd)
            raise Misconfigured(_too_small(directory, first)) from error
        return cls(path, fd, capacity)

    def offset(self, slot: int) -> int:
        return self._start + slot * layout.UNIT

    def grow(self, units: int) -> bool:
        """Have the first `units` of the data allocated; False if the file system has no room.

        Writing into a sparse file instead would look the same until its memory runs out."""
        try:
            os.posix_fallocate(self._fd, self._start, units * layout.UNIT)
        except OSError as error:
            if error.errno in _NO_SPACE:
                return False
            raise
        return True

    def available(self) -> int:
        """Bytes that the file system still has."""
        return _available(self.path.parent)

    def write(self, slot: int, data: memoryview) -> None:
        """Into allocated units only."""
        layout.write_fully(self._fd, data, self.offset(slot))

    def publish(self, slot: int, generation: int, nbytes: int, checksum: int) -> None:
        """From now on readers find what was written to `slot`."""
        entry = layout.Entry(generation, self.offset(slot), nbytes, checksum)
        layout.write_entry(self._fd, slot, entry)

    def withdraw(self, slot: int, generation: int) -> None:
        """From now on they do not, nor those who are reading it."""
        layout.write_entry(self._fd, slot, layout.Entry(generation, 0, 0, 0))

    def leave(self) -> None:
        """Without removing it; the lock goes with the descriptor."""
        os.close(self._fd)

    def remove(self) -> None:
        """Who has the file open can still read it."""
        self.path.unlink(missing_ok=True)
        os.close(self._fd)


def refuse_too_small(directory: Path, capacity: int) -> None:
    """Makes `directory` if it is absent. Raises `Misconfigured` if it is not ours alone, or has no
    room for an arena of `capacity` bytes."""
    capacity = _whole_units(capacity)
    needed = layout.data_start(capacity) + capacity
    if _available(private_directory(directory)) < needed:
        raise Misconfigured(_too_small(directory, needed))


def _whole_units(capacity: int) -> int:
    return max(1, -(-capacity // layout.UNIT)) * layout.UNIT


def _available(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _too_small(directory: Path, needed: int) -> str:
    return (
        f"{directory} cannot take an arena: {needed} bytes are needed, {_available(directory)} are "
        "free; enlarge that file system (docker: --shm-size, compose: shm_size, otherwise: mount "
        "-o remount,size=), lift the limit on file sizes, or set DARKROOM_ARENA_BYTES to"
        " less"
    )
