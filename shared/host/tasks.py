"""Tasks that live as long as a context does, owned by a task group."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager

from shared.errors import DarkroomError


@contextmanager
def single_error() -> Iterator[None]:
    """An exception group with one exception in it leaves as that exception, one of our own errors
    alone as the first of them, others as they are: whoever uses a fleet should see what went wrong,
    not which task group it went through."""
    try:
        yield
    except BaseExceptionGroup as group:
        ours = all(isinstance(error, DarkroomError) for error in group.exceptions)
        if ours or len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


@asynccontextmanager
async def alongside(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `coroutine` while the context is open, then cancel it. What it raises leaves the context,
    whose body is cancelled."""
    with single_error():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(coroutine)
            try:
                yield
            finally:
                task.cancel()
