"""Reading the arenas of this host's processes, whatever a handle says."""

import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final, Self
from zlib import crc32

from shared.errors import HandleLost
from shared.messages.handle import ArenaSlot, TensorHandle
from shared.tensors import layout, owners

OPEN_ARENAS: Final = 64
"""Arenas that a reader keeps open; the one used longest ago is closed first."""


class _OpenArena:
    """A file that stays open for as long as somebody holds this object: one thread may still read
    from an arena that another has just dropped from the cache."""

    def __init__(self, fd: int, capacity: int) -> None:
        self.fd = fd
        self.capacity = capacity
        self.start = layout.data_start(capacity)

    def __del__(self) -> None:
        os.close(self.fd)


class ArenaReader:
    """Copies tensors out of the arenas in `directory`. Any thread may call any method.

    A handle whose bytes are not there, or not those it describes, raises `HandleLost`."""

    def __init__(self, directory: Path, open_arenas: int = OPEN_ARENAS) -> None:
        self._directory = directory
        self._bound = open_arenas
        self._arenas: OrderedDict[str, _OpenArena] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, handle: TensorHandle) -> bytearray:
        """The bytes of a handle, as a copy of one's own."""
        if handle.inline is not None:
            data = bytearray(handle.inline)
            _check_sum(handle, memoryview(data))
            return data
        arena, place = self._find(handle)
        data = bytearray(handle.nbytes)
        _copy(arena, handle, place, memoryview(data))
        return data

    def holds(self, place: ArenaSlot) -> bool:
        """Whether the arena is one of this directory; its slot may still be lost."""
        if place.host != owners.host_id() or owners.owner_of(place.arena) is None:
            return False
        return place.arena in self._arenas or _path(self._directory, place.arena).exists()

    def forget_removed(self) -> int:
        """Close arenas whose files are gone, because open ones still hold their memory."""
        with self._lock:
            gone = [name for name, arena in self._arenas.items() if _is_removed(arena.fd)]
            for name in gone:
                del self._arenas[name]
            return len(gone)

    def close(self) -> None:
        with self._lock:
            self._arenas.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ArenaReader {self._directory}: {len(self._arenas)} of {self._bound} arenas open>"

    def _find(self, handle: TensorHandle) -> tuple[_OpenArena, ArenaSlot]:
        place = handle.slot
        if place is None:
            raise HandleLost(handle.name, "it names no slot")
        if place.host != owners.host_id():
            raise HandleLost(handle.name, "it is from another host, or from before a reboot")
        arena = self._open(place.arena, handle)
        _check_place(arena, handle, place)
        return arena, place

    def _open(self, name: str, handle: TensorHandle) -> _OpenArena:
        with self._lock:
            found = self._arenas.get(name)
            if found is not None:
                self._arenas.move_to_end(name)
                return found
        # A new arena often replaces one whose process has died.
        self.forget_removed()
        arena = _open_file(self._directory, name, handle)
        with self._lock:
            self._arenas[name] = arena
            while len(self._arenas) > self._bound:
                self._arenas.popitem(last=False)
        return arena


def _path(directory: Path, name: str) -> Path:
    return directory / (name + owners.SUFFIX)


def _open_file(directory: Path, name: str, handle: TensorHandle) -> _OpenArena:
    # The name comes from a message: it must not lead out of the directory.
    if owners.owner_of(name) is None:
        raise HandleLost(handle.name, "no arena has such a name")
    try:
        fd = os.open(_path(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise HandleLost(handle.name, f"its arena cannot be opened: {error.strerror}") from error
    found = os.fstat(fd)
    header = None
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        header = layout.read_header(fd)
    if header is None:
        os.close(fd)
        raise HandleLost(handle.name, "its arena is not a file of ours, or of another version")
    return _OpenArena(fd, header.capacity)


def _check_place(arena: _OpenArena, handle: TensorHandle, place: ArenaSlot) -> None:
    """Every number is compared with what the file can hold before it is used as one."""
    end = min(arena.start + arena.capacity, os.fstat(arena.fd).st_size)
    if not 0 <= place.slot < arena.capacity // layout.UNIT:
        raise HandleLost(handle.name, "no such slot")
    if place.offset != arena.start + place.slot * layout.UNIT:
        raise HandleLost(handle.name, "its offset is not that of its slot")
    if not 0 < handle.nbytes <= end - place.offset:
        raise HandleLost(handle.name, f"{handle.nbytes} bytes do not fit behind its offset")


def _copy(arena: _OpenArena, handle: TensorHandle, place: ArenaSlot, into: memoryview) -> None:
    """The table is read before and after the bytes, so that a slot reused in between is noticed."""
    expected = layout.Entry(place.generation, place.offset, handle.nbytes, handle.checksum)
    if place.generation % 2 == 0 or layout.read_entry(arena.fd, place.slot) != expected:
        raise HandleLost(handle.name, "its slot was freed")
    complete = layout.read_fully(arena.fd, into, place.offset)
    if not complete or layout.read_entry(arena.fd, place.slot) != expected:
        raise HandleLost(handle.name, "its slot was freed while it was read")
    _check_sum(handle, into)


def _check_sum(handle: TensorHandle, data: memoryview) -> None:
    if crc32(data) != handle.checksum:
        raise HandleLost(handle.name, "its bytes do not fit its checksum")


def _is_removed(fd: int) -> bool:
    return os.fstat(fd).st_nlink == 0
