"""Helpers that every test may use, and how tests are shared out among processes."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

SHARED = {"fleet", "alone"}
"""Fixtures that are fleets, or came of some, for the tests of several modules."""

# Tests compute on one thread: two processes of two threads each would wait for each other's cores.
# Read by torch when it is imported. A fleet decides for itself (`services/fleet/plan.py`).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `--dist loadgroup` shares out, one after another: all tests on shared fleets as one
    piece, else modules, since their tests share what is costly to make."""
    items.sort(key=_turn)
    for item in items:
        group = item.nodeid.partition("::")[0] if _turn(item) else "fleets"
        item.add_marker(pytest.mark.xdist_group(group))


def _turn(item: pytest.Item) -> int:
    """The longest comes first: shared fleets, `tests/chaos/` ahead. By the time that other fleets
    start beside them, nobody measures any more how soon a harmed fleet goes on. Short modules come
    last, for whoever is done early."""
    if SHARED & set(getattr(item, "fixturenames", ())):
        return 0
    if item.nodeid.startswith("tests/e2e/"):
        return 2
    return 3 if item.nodeid.startswith(("tests/services/", "tests/shared/")) else 1


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
