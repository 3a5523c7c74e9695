"""Long work on a thread of its own, which steps aside for what computes meanwhile."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

NICENESS: Final = 10
"""By how much the thread, and those that it starts, are less urgent than the rest of the
process."""
SWITCH_SECONDS: Final = 0.0005
"""After which it lets others have the interpreter, while it runs."""


async def in_background(name: str, work: Callable[[], T], modest: bool = True) -> T:
    """What `work` returns or raises, of a thread called `name`. `modest`: it steps aside for the
    process's other threads. A thread cannot be stopped: if this is cancelled, it runs to its end,
    and keeps no process from leaving."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # it is a T where nothing was raised

    def run() -> None:
        result: T | None = None
        raised: BaseException | None = None
        try:
            with stepping_aside() if modest else contextlib.nullcontext():
                result = work()
        except BaseException as error:
            raised = error
        with contextlib.suppress(RuntimeError):  # nobody waits: the event loop ended before
            loop.call_soon_threadsafe(settle, result, raised)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await answer


@contextlib.contextmanager
def stepping_aside() -> Iterator[None]:
    """For a thread that ends soon after: it cannot become urgent again."""
    if sys.platform == "linux":  # elsewhere threads have no priorities of their own
        now = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, now + NICENESS))
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, SWITCH_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
