"""An event loop whose clock jumps to the next timer: hours pass at once, always the same way."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

DAY: Final = 86_400.0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For code that waits for nothing but timers and other tasks of the same loop."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end, which has to come within a day."""

    async def bounded() -> T:
        async with asyncio.timeout(DAY):
            return await coroutine

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(bounded())
