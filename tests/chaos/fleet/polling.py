"""Waiting for what has no event."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], what: str, within: float) -> None:
    """Raises `TimeoutError` naming what did not happen."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within:.0f} s for {what}")
        await asyncio.sleep(0.05)
