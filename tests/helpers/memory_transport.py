"""A transport within one process, without files."""

import threading
import time
from collections.abc import Callable
from zlib import crc32

from shared.errors import ArenaFull, HandleLost
from shared.messages.handle import INLINE_LIMIT, ArenaSlot, Buffer, TensorHandle, byte_view
from shared.tensors.transport import Transport


class MemoryTransport(Transport):
    """A fake within one process: it keeps the promises of a `Transport`, and has nothing else.
    Those that share a `store` have different names, and read each other's tensors."""

    HOST = "memory"

    def __init__(
        self,
        name: str = "memory",
        capacity: int = 1 << 30,
        store: dict[tuple[str, int], tuple[TensorHandle, bytes]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self._store = {} if store is None else store
        """(transport, generation) -> the handle given out, and its bytes."""
        self._clock = clock
        self._lock = threading.Lock()
        self._puts = 0

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
        content = bytes(byte_view(data, dtype, shape))
        with self._lock:
            place = None if len(content) <= INLINE_LIMIT else self._reserve(len(content))
            handle = TensorHandle(
                dtype=dtype,
                shape=shape,
                nbytes=len(content),
                checksum=crc32(content),
                job_id=job_id,
                attempt=attempt,
                expires_at=self._clock() + lifetime,
                slot=place,
                inline=content if place is None else None,
            )
            if place is not None:
                self._store[self.name, place.generation] = (handle, content)
        return handle

    def get(self, handle: TensorHandle) -> bytearray:
        if handle.slot is None:
            content = handle.inline or b""
        else:
            found = self._store.get((handle.slot.arena, handle.slot.generation))
            if found is None or found[0] != handle:
                raise HandleLost(handle.name, "it was given up")
            content = found[1]
        if crc32(content) != handle.checksum:
            raise HandleLost(handle.name, "its bytes do not fit its checksum")
        return bytearray(content)

    def free(self, handle: TensorHandle) -> bool:
        return self._drop(lambda held: held == handle) == 1

    def release_job(self, job_id: str) -> int:
        return self._drop(lambda held: held.job_id == job_id)

    def jobs(self) -> frozenset[str]:
        return frozenset(held.job_id for held in self._own().values())

    def expire(self, now: float) -> int:
        return self._drop(lambda held: held.expires_at <= now)

    def close(self) -> None:
        self._drop(lambda held: True)

    def __repr__(self) -> str:
        return f"<MemoryTransport {self.name}: {len(self._own())} tensors>"

    def _reserve(self, nbytes: int) -> ArenaSlot:
        in_use = sum(held.nbytes for held in self._own().values())
        if in_use + nbytes > self.capacity:
            raise ArenaFull(self.name, nbytes, in_use, self.capacity)
        self._puts += 1
        return ArenaSlot(host=self.HOST, arena=self.name, slot=0, generation=self._puts, offset=0)

    def _own(self) -> dict[tuple[str, int], TensorHandle]:
        return {key: held for key, (held, _) in self._store.copy().items() if key[0] == self.name}

    def _drop(self, given_up: Callable[[TensorHandle], bool]) -> int:
        with self._lock:
            gone = [key for key, held in self._own().items() if given_up(held)]
            for key in gone:
                del self._store[key]
            return len(gone)
