"""A tensor from one process to another: as a handle, or inside messages."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.hops.receiver import HANDLES, INLINE
from shared.bus.base import Bus
from shared.bus.nats import connect
from shared.errors import BusUnavailable
from shared.messages import encode
from shared.tensors.arena import Arena

PIECE: Final = 512 * 1024
"""Bytes per message; the server takes at most 8 MiB."""
ARENA_BYTES: Final = 256 * 1024 * 1024
START_SECONDS: Final = 30.0
REPLY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sender:
    """Each way ends when the receiver has said that all bytes are there."""

    bus: Bus
    arena: Arena

    async def by_handle(self, data: bytes) -> float:
        """Seconds to write a slot, send its handle, and have it read with all checks."""
        began = time.perf_counter()
        handle = self.arena.write(
            data, "uint8", (len(data),), job_id="benchmark", attempt=1, lifetime_seconds=60.0
        )
        await self._ask(HANDLES, encode(handle), len(data))
        seconds = time.perf_counter() - began
        self.arena.free(handle)
        return seconds

    async def inline(self, data: bytes) -> float:
        """Seconds to send the bytes themselves, in pieces of at most `PIECE` bytes."""
        began = time.perf_counter()
        last = (len(data) - 1) // PIECE * PIECE
        for start in range(0, last, PIECE):
            await self.bus.publish(INLINE, data[start : start + PIECE])
        await self._ask(INLINE, data[last:], len(data))
        return time.perf_counter() - began

    async def _ask(self, subject: str, message: bytes, nbytes: int) -> None:
        answer = await self.bus.request(subject, message, REPLY_SECONDS)
        if answer.data != str(nbytes).encode():
            raise RuntimeError(f"{answer.data.decode()} of {nbytes} bytes arrived")


@asynccontextmanager
async def sender(url: str, arenas: Path) -> AsyncIterator[Sender]:
    """With a receiver in a process of its own, both connected to the bus at `url`."""
    with (
        _receiver(url, arenas),
        Arena.create(arenas, ARENA_BYTES, "benchmark") as arena,
    ):
        bus = await connect(url, "benchmark-sender")
        try:
            found = Sender(bus, arena)
            await _listening(found)
            yield found
        finally:
            await bus.close()


@contextmanager
def _receiver(url: str, arenas: Path) -> Iterator[None]:
    command = (sys.executable, "-m", "benchmarks.hops.receiver", url, str(arenas))
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


async def _listening(found: Sender) -> None:
    """Wait until the receiver answers both ways."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await found.by_handle(os.urandom(1))
                await found.inline(os.urandom(1))
                return
            except BusUnavailable:
                await asyncio.sleep(0.05)
