"""Helpers that every test may use, and how tests are shared out among processes."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

FLEETS = ("tests/chaos/", "tests/e2e/")
"""Their tests start whole fleets, or share one."""

# Tests compute on one thread: two processes of two threads each would wait for each other's cores.
# Read by torch when it is imported. A fleet decides for itself (`services/fleet/plan.py`).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `--dist loadgroup` shares out are modules, since their tests share what is costly to
    make. Whatever starts fleets is one piece, so that no two fleets that expect answers in time
    run beside each other, and comes first, since it is the longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(FLEETS))
    for item in items:
        group = "fleets" if item.nodeid.startswith(FLEETS) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def run(coroutine: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
    """Run `coroutine` to its end in a fresh event loop; a hang fails after `timeout` seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout):
            return await coroutine

    return asyncio.run(bounded())


async def eventually(
    condition: Callable[[], Awaitable[bool]], within: float = 10.0, every: float = 0.02
) -> None:
    """Return once `condition` holds; fail if it does not within `within` seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 (what is awaited has no event)
            await asyncio.sleep(every)
