"""The memory in which one process keeps the tensors that others read: who holds which slot of its
file, and until when. See `layout.py` for the file, `reader.py` for the readers.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from zlib import crc32

from shared.errors import ArenaFull, TmpfsFull
from shared.messages.handle import INLINE_LIMIT, ArenaSlot, Buffer, TensorHandle, byte_view
from shared.tensors import owners
from shared.tensors.arena_file import ArenaFile
from shared.tensors.extents import Extents, size_class
from shared.tensors.layout import UNIT

GROWTH: Final = 16 * 1024 * 1024
"""Bytes by which the file grows: allocating this much takes the file system a few milliseconds."""


@dataclass(frozen=True, slots=True)
class ArenaStatistics:
    """Sizes in bytes. `in_use` counts whole slots, `allocated` what the file system gave so far."""

    capacity: int
    allocated: int
    in_use: int
    slots: int
    jobs: int
    refused: int
    """Tensors for which there was no room."""


@dataclass(slots=True)
class _Slot:
    """A run of `units` in use; its number is that of its first unit."""

    number: int
    units: int
    generation: int
    job_id: str
    expires_at: float
    published: bool = False
    """False while its bytes are being copied, which no lock is held for."""


class Arena:
    """One process's slots. Any thread may call any method; no lock is held while bytes move.

    Bounds: `capacity` bytes of data; everything else follows from it."""

    def __init__(self, file: ArenaFile, clock: Callable[[], float] = time.time) -> None:
        """Takes over `file`, which has to be new; see `create`."""
        self._file = file
        self._clock = clock
        self._extents = Extents()
        self._generations: dict[int, int] = {}
        """Slot number -> generation in the file's table, where it is not 0."""
        self._slots: dict[int, _Slot] = {}
        self._jobs: dict[str, set[int]] = {}
        """Job id -> numbers of its slots; no empty sets."""
        self._in_use = 0
        self._writers = 0
        self._refused = 0
        self._starved = False
        """The file system refused to give more, in the reservation that is being made."""
        self._closed = False
        self._lock = threading.Lock()
        self._writer_left = threading.Condition(self._lock)

    @classmethod
    def create(
        cls,
        directory: Path,
        capacity: int,
        service: str,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A new arena of `capacity` bytes (rounded up to whole units) for this process.

        Raises `Misconfigured` if `directory` is not ours alone, or has not that much room."""
        return cls(ArenaFile.create(directory, capacity, service), clock)

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def capacity(self) -> int:
        return self._file.capacity

    def write(
        self,
        data: Buffer,
        dtype: str,
        shape: tuple[int, ...],
        *,
        job_id: str,
        attempt: int,
        lifetime_seconds: float,
    ) -> TensorHandle:
        """Copy `data` (C-contiguous, of `dtype` and `shape`), and describe where it is.

        The slot is freed by `free`, by `release_job`, or by `expire` after `lifetime_seconds`.
        Raises `ArenaFull`, or `ValueError` if `data` does not fit `dtype` and `shape`."""
        view = byte_view(data, dtype, shape)
        expires_at = self._clock() + lifetime_seconds
        checksum = crc32(view)
        place: ArenaSlot | None = None
        if len(view) > INLINE_LIMIT:
            place = self._write_slot(view, checksum, job_id, expires_at)
        return TensorHandle(
            dtype=dtype,
            shape=shape,
            nbytes=len(view),
            checksum=checksum,
            job_id=job_id,
            attempt=attempt,
            expires_at=expires_at,
            slot=place,
            inline=bytes(view) if place is None else None,
        )

    def free(self, handle: TensorHandle) -> bool:
        """False if `handle` holds no slot of this arena (any more), or rides inline."""
        place = handle.slot
        if place is None or place.arena != self.name:
            return False
        with self._lock:
            slot = self._slots.get(place.slot)
            if slot is None or slot.generation != place.generation:
                return False
            self._drop([slot])
            return True

    def release_job(self, job_id: str) -> int:
        """Free every slot of this job, one being written too; says how many there were."""
        with self._lock:
            return self._drop([self._slots[number] for number in self._jobs.get(job_id, ())])

    def jobs(self) -> frozenset[str]:
        """Ids of the jobs that hold slots."""
        with self._lock:
            return frozenset(self._jobs)

    def expire(self, now: float) -> int:
        """Free every slot whose lifetime ended by `now` (Unix seconds); says how many."""
        with self._lock:
            return self._drop([slot for slot in self._slots.values() if slot.expires_at <= now])

    def statistics(self) -> ArenaStatistics:
        with self._lock:
            return ArenaStatistics(
                capacity=self.capacity,
                allocated=self._extents.limit * UNIT,
                in_use=self._in_use,
                slots=len(self._slots),
                jobs=len(self._jobs),
                refused=self._refused,
            )

    def close(self) -> None:
        """Remove the file, once those who are writing have finished. Safe to call twice.

        What was put is lost to every reader, even to one that has the file open."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._drop(list(self._slots.values()))
            self._writer_left.wait_for(lambda: self._writers == 0)
            self._file.remove()

    def leave(self) -> None:
        """Give the arena up, as a process does that ends in peace. If jobs still need what lies in
        it, the file stays, and is readable until a janitor's grace is over; else it is removed."""
        with self._lock:
            if self._closed or not self._slots:
                needed = False
            else:
                needed = self._closed = True
                self._writer_left.wait_for(lambda: self._writers == 0)
                self._file.leave()
        if not needed:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = self.statistics()
        return (
            f"<Arena {self.name}: {counts.slots} slots of {counts.jobs} jobs, {counts.in_use} of "
            f"{counts.capacity} bytes in use, {counts.allocated} allocated"
            f"{', closed' if self._closed else ''}>"
        )

    def _write_slot(
        self, view: memoryview, checksum: int, job_id: str, expires_at: float
    ) -> ArenaSlot:
        with self._lock:
            slot = self._reserve(len(view), job_id, expires_at)
            self._writers += 1
        complete = False
        try:
            self._file.write(slot.number, view)
            complete = True
        finally:
            with self._lock:
                self._writers -= 1
                self._writer_left.notify_all()
                self._settle(slot, complete, len(view), checksum)
        return ArenaSlot(
            host=owners.host_id(),
            arena=self.name,
            slot=slot.number,
            generation=slot.generation,
            offset=self._file.offset(slot.number),
        )

    def _reserve(self, nbytes: int, job_id: str, expires_at: float) -> _Slot:
        if self._closed:
            raise RuntimeError(f"arena {self.name} is closed")
        exact = -(-nbytes // UNIT)
        units = size_class(exact)
        self._starved = False
        number = self._take(units)
        if number is None and exact != units:
            units, number = exact, self._take(exact)
        if number is None:
            raise self._no_room(nbytes)
        generation = self._generations.get(number, 0) + 1
        slot = self._slots[number] = _Slot(number, units, generation, job_id, expires_at)
        self._jobs.setdefault(job_id, set()).add(number)
        self._in_use += units * UNIT
        return slot

    def _take(self, units: int) -> int | None:
        """The number of a new slot of this size, in memory that is allocated."""
        number = self._extents.take(units)
        wanted, most = self._extents.end + units, self.capacity // UNIT
        if number is not None or wanted > most:
            return number
        generous = min(most, max(wanted, self._extents.limit + GROWTH // UNIT))
        for limit in (generous, wanted):
            if self._file.grow(limit):
                self._extents.limit = limit
                return self._extents.take(units)
        self._starved = True
        return None

    def _no_room(self, nbytes: int) -> ArenaFull:
        """By name: either bound may have been reached."""
        self._refused += 1
        if self._starved:
            return TmpfsFull(self.name, nbytes, str(self.path.parent), self._file.available())
        return ArenaFull(self.name, nbytes, self._in_use, self.capacity)

    def _settle(self, slot: _Slot, complete: bool, nbytes: int, checksum: int) -> None:
        """Its writer is done: publish it, unless it was freed meanwhile or is not complete."""
        wanted = self._slots.get(slot.number) is slot
        if wanted and complete:
            slot.published = True
            self._generations[slot.number] = slot.generation
            self._file.publish(slot.number, slot.generation, nbytes, checksum)
            return
        if wanted:
            self._forget(slot)
        # The handle of this generation may exist, so no other tensor may have it.
        self._generations[slot.number] = slot.generation + 1
        self._extents.give(slot.number, slot.units)

    def _drop(self, slots: list[_Slot]) -> int:
        for slot in slots:
            self._forget(slot)
            if slot.published:  # otherwise its writer gives the memory back
                self._generations[slot.number] = slot.generation + 1
                self._file.withdraw(slot.number, slot.generation + 1)
                self._extents.give(slot.number, slot.units)
        return len(slots)

    def _forget(self, slot: _Slot) -> None:
        del self._slots[slot.number]
        of_job = self._jobs[slot.job_id]
        of_job.remove(slot.number)
        if not of_job:
            del self._jobs[slot.job_id]
        self._in_use -= slot.units * UNIT
