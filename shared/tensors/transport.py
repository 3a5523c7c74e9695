"""How tensors get from one process to another. The handle says where the bytes are; who uses the
tensor does not care. `tests/contracts/test_transport.py` holds the promises."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec

from shared.messages.handle import Buffer, TensorHandle
from shared.tensors.arena import Arena
from shared.tensors.pull_protocol import Secret, secret_in_force
from shared.tensors.reader import ArenaReader
from shared.tensors.tcp import pull


class Transport:
    """One process's way to give tensors away and to get at those of others: shared memory on one
    host; between hosts a TCP pull, from a server that says in each handle where it is.

    The calls block (tens of microseconds for what a small image needs, tens of milliseconds for
    50 MB) and may come from any thread; an event loop gives large ones to `asyncio.to_thread`."""

    def __init__(
        self, arena: Arena, reader: ArenaReader, address: str = "", secret: Secret | None = None
    ) -> None:
        """`address`: where `tcp.serving` serves `reader`; empty: nowhere, and nothing is pulled.
        `secret`: what both sides of a pull have to know."""
        self.name = arena.name
        """Of the arena that `put` writes to: where `ReleaseJob` messages for it are sent."""
        self.arena = arena
        self.reader = reader
        self._address = address
        self._secret = secret

    @classmethod
    def create(
        cls,
        directory: Path,
        capacity: int,
        service: str,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """With an arena of its own; see `Arena.create`."""
        return cls(Arena.create(directory, capacity, service, clock), ArenaReader(directory))

    def served_at(self, address: str) -> "Transport":
        """The same, for handles that hosts which reach `address` can use too. With the secret that
        is in force."""
        return Transport(self.arena, self.reader, address, secret_in_force())

    def __repr__(self) -> str:
        served = f" at {self._address}" if self._address else ""
        return f"<Transport{served} {self.arena!r}, {self.reader!r}>"

    def put(
        self,
        data: Buffer,
        dtype: str,
        shape: tuple[int, ...],
        *,
        job_id: str,
        attempt: int,
        lifetime: float,
    ) -> TensorHandle:
        """Copy `data`, so that others can get it for `lifetime` seconds or until it is released.
        Up to `INLINE_LIMIT` bytes travel inside the handle.

        Raises `ArenaFull`, or `ValueError` if `data` does not fit `dtype` and `shape`."""
        handle = self.arena.write(
            data, dtype, shape, job_id=job_id, attempt=attempt, lifetime_seconds=lifetime
        )
        if handle.slot is None or not self._address:
            return handle
        place = msgspec.structs.replace(handle.slot, address=self._address)
        return msgspec.structs.replace(handle, slot=place)

    def get(self, handle: TensorHandle) -> bytearray:
        """A copy of the tensor's bytes, the caller's own. Raises `HandleLost`, and nothing else,
        whatever is wrong with the handle or with what it points at."""
        place = handle.slot
        if place is None or not (self._address and place.address) or self.reader.holds(place):
            return self.reader.read(handle)
        return pull(place.address, handle, self._secret)

    def free(self, handle: TensorHandle) -> bool:
        """Give up what an own `put` returned; False if there was nothing (any more) to give up."""
        return self.arena.free(handle)

    def release_job(self, job_id: str) -> int:
        """Give up everything put for this job; says how many tensors that were."""
        return self.arena.release_job(job_id)

    def jobs(self) -> frozenset[str]:
        """Ids of the jobs for which something put here is still held."""
        return self.arena.jobs()

    def expire(self, now: float) -> int:
        """Give up everything whose lifetime ended by `now`; says how many tensors that were."""
        self.reader.forget_removed()
        return self.arena.expire(now)

    def leave(self) -> None:
        """As `close`, but what jobs still need stays readable for a while; see `Arena.leave`."""
        self.arena.leave()
        self.reader.close()

    def close(self) -> None:
        """Give up everything. Safe to call twice."""
        self.arena.close()
        self.reader.close()
