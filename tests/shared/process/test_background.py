"""Long work on a thread that steps aside."""

import asyncio
import os
import sys
import threading

import pytest

from shared.process.background import NICENESS, in_background
from tests.conftest import eventually, run


def test_its_result_or_its_error_comes_to_who_waits() -> None:
    async def scenario() -> None:
        assert await in_background("test-work", threading.current_thread) != threading.main_thread()
        with pytest.raises(ValueError, match="no file"):
            await in_background("test-work", lambda: _raise(ValueError("no file")))

    run(scenario())


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_it_is_less_urgent_than_the_others_if_it_is_modest() -> None:
    def look() -> tuple[int, float]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), sys.getswitchinterval()

    async def scenario() -> None:
        urgent, usual = look()
        assert await in_background("test-work", look, modest=False) == (urgent, usual)
        modest, short = await in_background("test-work", look)
        assert modest == min(19, urgent + NICENESS)
        assert short < usual
        assert look() == (urgent, usual)

    run(scenario())


def test_who_gives_up_waiting_leaves_the_thread_to_its_end() -> None:
    async def scenario() -> None:
        began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            goes_on.wait()
            ended.set()

        waiting = asyncio.create_task(in_background("test-work", work))
        await asyncio.to_thread(began.wait)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not ended.is_set()
        goes_on.set()

        async def over() -> bool:
            return ended.is_set()

        await eventually(over)

    run(scenario())
