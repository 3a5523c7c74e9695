import asyncio

import pytest

from loadgen.runs.run import Interrupted
from loadgen.runs.solo import MAX_TEMPLATES, NotMeasured, solo_latencies, until_quiet, warm_up
from loadgen.targets.base import Answer
from shared.errors import Misconfigured
from tests.loadgen.servers import Server, shot
from tests.loadgen.virtual_time import run_virtually


def test_each_template_is_measured_alone_and_its_warm_up_does_not_count() -> None:
    class Cold(Server):
        async def send(self, shot):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.0 if self.seen else 30.0)
            return await super().send(shot)

    server = Cold(seconds=2.0)
    shots = [shot(0, 0, "a"), shot(1, 5, "a"), shot(2, 9, "b")]
    assert run_virtually(solo_latencies(shots, server, requests=3)) == {"a": 2.0, "b": 2.0}
    assert [number for number, _ in server.seen] == [0, 0, 0, 0, 2, 2, 2, 2]


def test_a_failure_while_measuring_is_told_by_name() -> None:
    server = Server(seconds=1.0, answers={0: Answer("rejected", "invalid_value")})
    with pytest.raises(NotMeasured, match=r"'default'.*rejected: invalid_value"):
        run_virtually(warm_up([shot(0)], server))


def test_measuring_is_interrupted_by_stop() -> None:
    async def scenario() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(3.0, stop.set)
        with pytest.raises(Interrupted):
            await solo_latencies([shot(0)], Server(seconds=2.0), stop=stop)
        assert asyncio.get_running_loop().time() == 3.0

    run_virtually(scenario())


def test_more_templates_than_can_be_measured_are_refused() -> None:
    shots = [shot(n, 0.0, f"kind {n}") for n in range(MAX_TEMPLATES + 1)]
    with pytest.raises(Misconfigured, match="too many to measure alone"):
        run_virtually(solo_latencies(shots, Server(seconds=1.0)))


def test_a_server_is_quiet_once_what_was_queued_is_done() -> None:
    async def scenario() -> tuple[bool, float]:
        server = Server(seconds=1.0)
        left = [asyncio.create_task(server.send(shot(9))) for _ in range(5)]
        await asyncio.sleep(0)
        quiet = await until_quiet(shot(0), 1.0, server)
        await asyncio.gather(*left)
        return quiet, asyncio.get_running_loop().time()

    # The first probe stands in the queue for 5 s; the second takes what one takes alone.
    assert run_virtually(scenario()) == (True, 7.0)


def test_a_server_that_never_gets_over_it_is_not_waited_for_forever() -> None:
    server = Server(seconds=10.0)
    assert run_virtually(until_quiet(shot(0), 1.0, server, tries=3)) is False


def test_a_server_that_still_refuses_is_asked_again() -> None:
    async def scenario() -> tuple[bool, float]:
        server = Server(seconds=0.0, answers={0: Answer("rejected", "queue_full")})
        asyncio.get_running_loop().call_later(4.5, server.answers.clear)
        return await until_quiet(shot(0), 1.0, server), asyncio.get_running_loop().time()

    assert run_virtually(scenario()) == (True, 5.0)
