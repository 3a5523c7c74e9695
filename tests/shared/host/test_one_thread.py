"""Large work is done one piece at a time, whoever gives up waiting for it."""

import asyncio
import threading

import pytest

from shared.errors import InvalidRequest
from shared.host.one_thread import OneThread
from tests.conftest import eventually, run


def test_the_next_call_waits_for_the_end_of_one_that_nobody_waits_for() -> None:
    async def scenario() -> None:
        began, goes_on, order = threading.Event(), threading.Event(), list[str]()

        def first() -> None:
            began.set()
            goes_on.wait()
            order.append("first")

        one = OneThread()
        left = asyncio.create_task(one.call(first))
        await asyncio.to_thread(began.wait)
        second = asyncio.create_task(one.call(order.append, "second"))
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert "busy" in repr(one)
        goes_on.set()
        await second
        assert order == ["first", "second"]
        await eventually(lambda: _is_free(one))

    run(scenario())


async def _is_free(one: OneThread) -> bool:
    return "free" in repr(one)


def test_errors_and_results_come_back() -> None:
    def refuse(field: str) -> None:
        raise InvalidRequest(field, "a", "b")

    async def scenario() -> None:
        one = OneThread()
        assert await one.call(sum, [1, 2]) == 3
        with pytest.raises(InvalidRequest, match="image: 'a'"):
            await one.call(refuse, "image")
        assert await one.call(sum, [3]) == 3

    run(scenario())


def test_a_caller_that_leaves_before_its_turn_takes_none() -> None:
    async def scenario() -> None:
        goes_on, called = threading.Event(), list[str]()
        one = OneThread()
        first = asyncio.create_task(one.call(goes_on.wait))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(one.call(called.append, "second"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        goes_on.set()
        assert await first
        assert await one.call(len, called) == 0

    run(scenario())
