"""How a command ends: exit codes, messages, and what a Ctrl-C does."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import typer
from rich.console import Console

from shared.errors import DarkroomError, InvalidRequest

FAILED: Final = 1
BAD_USAGE: Final = 2
INTERRUPTED: Final = 130

T = TypeVar("T")


@contextmanager
def exit_codes(errors: Console) -> Iterator[None]:
    """Errors of ours leave as a message on `errors` and an exit code."""
    try:
        yield
    except InvalidRequest as error:
        raise _exit(errors, error.message, BAD_USAGE) from error
    except DarkroomError as error:
        raise _exit(errors, error.message, FAILED) from error
    except (asyncio.CancelledError, KeyboardInterrupt) as error:
        raise typer.Exit(INTERRUPTED) from error


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Ctrl-C and SIGTERM cancel it, and it cleans up behind itself."""

    async def cancelled_by_signals() -> T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await work

    return asyncio.run(cancelled_by_signals())


def _exit(errors: Console, message: str, code: int) -> typer.Exit:
    errors.print(f"darkroom: {message}", highlight=False, markup=False, soft_wrap=True)
    return typer.Exit(code)
