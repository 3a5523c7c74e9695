"""A process of one's own for as long as a context is open."""

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from shared.host.die_with_parent import command_that_dies_with_us

STOP_SECONDS: Final = 10.0


@asynccontextmanager
async def child(*command: str, **options: Any) -> AsyncIterator[Process]:
    """`command` runs, for no longer than this process does. `options`: of
    `asyncio.create_subprocess_exec`. It is asked to end at the end, and killed if it does not."""
    process = await asyncio.create_subprocess_exec(
        *command_that_dies_with_us(command, signal.SIGTERM), **options
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def first_line(process: Process) -> str:
    """That it writes to its standard output, a pipe; empty if it ends before."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()
