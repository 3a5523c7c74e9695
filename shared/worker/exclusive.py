"""Many at a time, or one alone: a lock for tasks, first come, first served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ExclusiveLock:
    """`together` may be held by many, `alone` by one, and never both. Turns are given in order of
    arrival: who wants to be alone waits for those inside, and those who come later wait for it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        """Held for as long as somebody is alone, or waits for it."""
        self._together = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.occupied = False
        """Somebody is alone."""

    def __repr__(self) -> str:
        return f"<ExclusiveLock {'one alone' if self.occupied else f'{self._together} together'}>"

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        async with self._lock:
            self._together += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._together -= 1
            if not self._together:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._lock:
            await self._empty.wait()
            self.occupied = True
            try:
                yield
            finally:
                self.occupied = False
