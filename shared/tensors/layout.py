"""An arena's file: one page of header, a table with one entry per unit of data, then the data.

    0            header     magic, version, owner, capacity, and when a janitor found it ownerless
    4096         table      per unit: generation, offset, bytes, checksum
    data_start   data       extents of whole units

A tensor's slot is the number of the first unit of its extent. Its entry's generation grows by one
when the tensor is published and by one when it is freed: odd means published, and a generation
that a handle names never comes back. Entries are only ever at these places, so no tensor's bytes
can be mistaken for one, however extents are split and merged.
"""

import os
import struct
from dataclasses import dataclass
from typing import Final

PAGE: Final = 4096
UNIT: Final = 32 * 1024
"""Bytes; extents are whole units. Tensors of up to `INLINE_LIMIT` bytes never come here."""

MAGIC: Final = b"DRARENA\0"
VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIQQQd")
_ORPHANED_AT: Final = struct.Struct("<d")
_ORPHANED_OFFSET: Final = _HEADER.size - _ORPHANED_AT.size
_ENTRY: Final = struct.Struct("<QQQII")


@dataclass(frozen=True, slots=True)
class Header:
    capacity: int
    """Bytes of data at most; a multiple of `UNIT`."""
    pid: int
    started: int
    orphaned_at: float = 0.0
    """Unix seconds at which a janitor first found no owner; 0: none did."""

    def pack(self) -> bytes:
        return _HEADER.pack(
            MAGIC, VERSION, UNIT, self.capacity, self.pid, self.started, self.orphaned_at
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """What the table says about one slot."""

    generation: int
    offset: int
    nbytes: int
    checksum: int

    def pack(self) -> bytes:
        return _ENTRY.pack(self.generation, self.offset, self.nbytes, self.checksum, 0)


def data_start(capacity: int) -> int:
    """Offset in the file of the first unit, page-aligned."""
    end = PAGE + capacity // UNIT * _ENTRY.size
    return -(-end // PAGE) * PAGE


def read_header(fd: int) -> Header | None:
    """None if the file is no arena, or one of another version."""
    data = os.pread(fd, _HEADER.size, 0)
    if len(data) < _HEADER.size:
        return None
    magic, version, unit, capacity, pid, started, orphaned_at = _HEADER.unpack(data)
    if (magic, version, unit) != (MAGIC, VERSION, UNIT):
        return None
    return Header(capacity=capacity, pid=pid, started=started, orphaned_at=orphaned_at)


def mark_orphaned(fd: int, at: float) -> None:
    os.pwrite(fd, _ORPHANED_AT.pack(at), _ORPHANED_OFFSET)


def read_entry(fd: int, slot: int) -> Entry | None:
    """None if the file ends before."""
    data = os.pread(fd, _ENTRY.size, PAGE + slot * _ENTRY.size)
    if len(data) < _ENTRY.size:
        return None
    generation, offset, nbytes, checksum, _ = _ENTRY.unpack(data)
    return Entry(generation=generation, offset=offset, nbytes=nbytes, checksum=checksum)


def write_entry(fd: int, slot: int, entry: Entry) -> None:
    os.pwrite(fd, entry.pack(), PAGE + slot * _ENTRY.size)


def write_fully(fd: int, data: memoryview, offset: int) -> None:
    """One call of `pwrite` moves at most 2 GiB."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def read_fully(fd: int, into: memoryview, offset: int) -> bool:
    """Fill `into`; False if the file ends before."""
    while into:
        got = os.preadv(fd, [into], offset)
        if got == 0:
            return False
        into, offset = into[got:], offset + got
    return True
