"""Work that takes much memory, one piece at a time."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OneThread:
    """Calls functions in a thread, one after the other. A thread cannot be stopped: whoever comes
    next waits for its end, also where nobody waits for its result any more."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<OneThread {'busy' if self._free.locked() else 'free'}>"

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(None, partial(function, *args, **kwargs))
        running.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(running)
