"""A fleet that several tests share: it lives in an event loop of its own, in a thread of its own,
so that it is supervised also while no test runs."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Background(Generic[T]):
    """`context` is entered and left by one task in the thread; `run` lets coroutines use it."""

    def __init__(self, context: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._context = context
        self._thread = threading.Thread(target=self._live, name="background fleet")
        self._entered = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._leave: asyncio.Event
        self.value: T

    def run(self, coroutine: Coroutine[Any, Any, R], timeout: float) -> R:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def __enter__(self) -> Self:
        self._thread.start()
        self._entered.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._error is None:
            self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _live(self) -> None:
        try:
            asyncio.run(self._hold())
        except BaseException as error:
            self._error = error
        finally:
            self._entered.set()

    async def _hold(self) -> None:
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        async with self._context() as self.value:
            self._entered.set()
            await self._leave.wait()
