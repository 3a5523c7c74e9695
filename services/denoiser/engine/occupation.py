"""Whether a denoiser's process has work of its own, or time for others'."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Occupation:
    """Whether a process has work of its own."""

    def __init__(self) -> None:
        self._tasks = 0
        self._idle, self._busy = asyncio.Event(), asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Occupation {self._tasks} tasks>"

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within, there is some."""
        self._tasks += 1
        self._idle.clear()
        self._busy.set()
        try:
            yield
        finally:
            self._tasks -= 1
            if not self._tasks:
                self._busy.clear()
                self._idle.set()

    async def idle(self) -> None:
        """Return when there is none."""
        await self._idle.wait()

    async def busy(self) -> None:
        """Return when there is some."""
        await self._busy.wait()
