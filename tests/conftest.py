"""Helpers that every test may use."""

import asyncio
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

import pytest
from hypothesis import settings

from shared.residency.loader import Loader
from tests.needs import missing
from tests.units import in_order, unit_of

T = TypeVar("T")

# Tests compute on one thread: their tensors are small, and threads wait for each other's cores
# longer than they compute. Torch reads it when it is imported. A fleet decides for itself
# (`services/fleet/plan/processes.py`).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The usual ports are for whoever works on this machine, and for one fleet at a time.
os.environ["DARKROOM_NATS_PORT"] = "0"
# A busy machine may need long for an example, and more of them find little more.
settings.register_profile("suite", max_examples=50, deadline=None, database=None)
settings.load_profile("suite")

HANG_SECONDS: Final = 300.0
"""What takes longer hangs. It is no measure of speed: the slowest and busiest machine is faster."""


def run(coroutine: Coroutine[Any, Any, T], timeout: float = 2 * HANG_SECONDS) -> T:
    """Run `coroutine` to its end in a fresh event loop; a hang fails after `timeout` seconds."""

    results: list[T] = []

    async def bounded() -> None:
        async with asyncio.timeout(timeout):
            results.append(await coroutine)

    # Not the task's own result: `asyncio.run` describes its task at the end, and with it a tensor
    # that the task came to, which takes longer than many a test.
    asyncio.run(bounded())
    return results[0]


async def eventually(
    condition: Callable[[], Awaitable[bool]], within: float = HANG_SECONDS, every: float = 0.02
) -> None:
    """Return once `condition` holds; fail if it does not within `within` seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 (what is awaited has no event)
            await asyncio.sleep(every)


def until(condition: Callable[[], bool], within: float = HANG_SECONDS, every: float = 0.02) -> None:
    """`eventually`, where no event loop runs."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(every)


def pytest_configure() -> None:
    gc.disable()
    # Fleets convert weights once in each process of tests.
    os.environ["DARKROOM_WEIGHTS_DIR"] = tempfile.mkdtemp(prefix="darkroom-test-weights-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["DARKROOM_WEIGHTS_DIR"], ignore_errors=True)


def pytest_collection_finish() -> None:
    """What was imported until now stays: the collector need not go through it."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [items[index] for index in in_order([item.nodeid for item in items])]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if absent := missing(marker.name for marker in item.iter_markers()):
        pytest.skip(f"needs {', '.join(absent)}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole units for each process of tests, in our order, where whole files are asked for."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):  # type: ignore[misc]  # has no types
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Behind a unit all fixtures are torn down, those of the session too: a fleet that nobody uses
    takes processor time all the same."""
    if nextitem is None or unit_of(nextitem.nodeid) == unit_of(item.nodeid):
        return None
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return True


@pytest.fixture
def loader() -> Iterator[Loader]:
    found = Loader()
    yield found
    found.close()
