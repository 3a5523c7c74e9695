"""One row alone in the whole process, while the rows of all engines are held at a step boundary."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from services.denoiser.engine.engine import Engine
from shared.worker.exclusive import ExclusiveLock


class ExclusiveRun:
    """What is done `together` with others is never done while somebody is `alone`, nor is any step
    of `engines`. Turns are given in order of arrival, and between two rows that are alone the
    others take a step: whoever waits gets on."""

    def __init__(self, engines: Callable[[], Sequence[Engine]]) -> None:
        self._engines = engines
        self._exclusive_lock = ExclusiveLock()

    def __repr__(self) -> str:
        return f"<ExclusiveRun {self._exclusive_lock!r}>"

    @property
    def occupied(self) -> bool:
        """Somebody is alone."""
        return self._exclusive_lock.occupied

    def together(self) -> AbstractAsyncContextManager[None]:
        return self._exclusive_lock.together()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._exclusive_lock.alone(), AsyncExitStack() as stack:
            for engine in self._engines():
                await stack.enter_async_context(engine.held())
            yield
