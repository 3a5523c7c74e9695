"""The two loops, against servers in virtual time: every number here is exact."""

import asyncio
from collections import Counter

import pytest

from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome, Shot
from loadgen.runs.run import RETRY_SECONDS, run_closed, run_open
from loadgen.targets.base import Answer
from loadgen.workload.arrivals import Constant
from loadgen.workload.workload import Workload
from tests.loadgen.servers import Server, shot
from tests.loadgen.virtual_time import run_virtually


class Seen:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def sent(self, shot: Shot, at: float) -> None:
        self.events.append(f"{shot.number} sent at {at:g}")

    def ended(self, outcome: Outcome) -> None:
        self.events.append(f"{outcome.shot.number} {outcome.status} at {outcome.ended_at:g}")


def clock(count: int, every: float) -> list[Shot]:
    return [shot(number, number * every) for number in range(count)]


def test_a_slow_server_is_sent_everything_on_time_and_latency_counts_from_then() -> None:
    server = Server(seconds=2.0)
    outcomes = run_virtually(run_open(clock(4, 0.5), server))
    assert server.seen == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]
    assert [outcome.latency for outcome in outcomes] == [2.0, 3.5, 5.0, 6.5]
    assert {outcome.status for outcome in outcomes} == {"done"}


def test_a_shot_over_the_bound_is_lost_by_name_and_never_sent() -> None:
    server, seen = Server(seconds=10.0), Seen()
    outcomes = run_virtually(
        run_open(clock(4, 1.0), server, limits=Limits(in_flight=2), observer=seen)
    )
    assert [number for number, _ in server.seen] == [0, 1]
    assert [(o.shot.number, o.status, o.failure, o.ended_at) for o in outcomes] == [
        (2, "lost", "in_flight_limit", 2.0),
        (3, "lost", "in_flight_limit", 3.0),
        (0, "done", None, 10.0),
        (1, "done", None, 20.0),
    ]
    assert [event for event in seen.events if event.startswith("3")] == ["3 lost at 3"]


def test_a_shot_that_takes_too_long_is_a_timeout_and_its_server_is_told() -> None:
    server = Server(seconds=5.0, workers=2)
    outcomes = run_virtually(run_open(clock(1, 1.0), server, limits=Limits(timeout=3.0)))
    assert [(o.status, o.failure, o.ended_at) for o in outcomes] == [("timeout", "timeout", 3.0)]
    assert server.given_up == [0]


def test_what_is_not_answered_when_the_drain_is_over_is_cut_off() -> None:
    server = Server(seconds=4.0)
    outcomes = run_virtually(run_open(clock(3, 1.0), server, limits=Limits(drain=3.0)))
    assert [(o.shot.number, o.status, o.failure, o.ended_at) for o in outcomes] == [
        (0, "done", None, 4.0),
        (1, "timeout", "drain", 5.0),
        (2, "timeout", "drain", 5.0),
    ]
    assert sorted(server.given_up) == [1, 2]


def test_a_stopped_run_says_what_was_in_flight_and_sends_nothing_more() -> None:
    async def scenario() -> tuple[list[Outcome], Server]:
        server, stop = Server(seconds=4.0), asyncio.Event()
        asyncio.get_running_loop().call_later(5.5, stop.set)
        return await run_open(clock(100, 2.0), server, stop=stop), server

    outcomes, server = run_virtually(scenario())
    assert [number for number, _ in server.seen] == [0, 1, 2]
    assert [(o.shot.number, o.status, o.failure, o.ended_at) for o in outcomes] == [
        (0, "done", None, 4.0),
        (1, "lost", "interrupted", 5.5),
        (2, "lost", "interrupted", 5.5),
    ]


def test_a_cancelled_run_leaves_nothing_behind() -> None:
    async def scenario() -> Server:
        server = Server(seconds=100.0, workers=9)
        task = asyncio.create_task(run_open(clock(3, 1.0), server))
        asyncio.get_running_loop().call_later(1.5, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return server

    assert sorted(run_virtually(scenario()).given_up) == [0, 1]


def test_every_answer_becomes_the_outcome_it_is() -> None:
    answers = {0: Answer("rejected", "queue_full"), 1: Answer("failed", "not_finite")}
    seen = Seen()
    outcomes = run_virtually(
        run_open(clock(3, 1.0), Server(seconds=0.5, answers=answers), observer=seen)
    )
    assert [(o.status, o.failure, o.images) for o in outcomes] == [
        ("rejected", "queue_full", 0),
        ("failed", "not_finite", 0),
        ("done", None, 1),
    ]
    assert seen.events[:2] == ["0 sent at 0", "0 rejected at 0.5"]


def test_users_wait_for_their_answers_and_as_many_are_in_flight_as_there_are_users() -> None:
    server = Server(seconds=2.0, workers=9)
    workload = Workload(seconds=10.0)
    outcomes = run_virtually(run_closed(workload, server, users=3))
    assert Counter(at for _, at in server.seen) == dict.fromkeys((0, 2, 4, 6, 8), 3)
    assert {outcome.latency for outcome in outcomes} == {2.0}
    assert len({outcome.shot.number for outcome in outcomes}) == len(outcomes) == 15


def test_users_think_for_the_mean_that_was_given() -> None:
    server = Server(seconds=1.0, workers=99)
    outcomes = run_virtually(run_closed(Workload(seconds=4000.0), server, users=5, think=3.0))
    # Each cycle is a second of service and three of thought (the interactive response time law).
    assert len(outcomes) == pytest.approx(5 * 4000 / 4, rel=0.03)


def test_the_same_seed_makes_the_same_closed_loop() -> None:
    def once(seed: int) -> list[tuple[float, int | None]]:
        server = Server(seconds=1.0, workers=2)
        workload = Workload(seconds=30.0, seed=seed)
        outcomes = run_virtually(run_closed(workload, server, users=3, think=1.0))
        return [(outcome.shot.at, outcome.shot.request.seed) for outcome in outcomes]

    assert once(0) == once(0)
    assert once(0) != once(1)


def test_the_answers_still_due_when_a_closed_loop_ends_are_awaited() -> None:
    outcomes = run_virtually(run_closed(Workload(seconds=5.0), Server(seconds=4.0), users=1))
    assert [(o.shot.at, o.ended_at) for o in outcomes] == [(0.0, 4.0), (4.0, 8.0)]


def test_users_of_a_server_that_fails_at_once_do_not_ask_without_pause() -> None:
    failing = Server(seconds=0.0, answers={n: Answer("failed", "down") for n in range(1000)})
    outcomes = run_virtually(run_closed(Workload(seconds=5.0), failing, users=1))
    assert len(outcomes) == 5 / RETRY_SECONDS


def test_a_closed_loop_that_is_stopped_ends_at_once() -> None:
    async def scenario() -> list[Outcome]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(3.0, stop.set)
        return await run_closed(Workload(seconds=99.0), Server(seconds=2.0), users=2, stop=stop)

    outcomes = run_virtually(scenario())
    assert max(outcome.ended_at for outcome in outcomes) == 3.0
    assert Counter(outcome.failure for outcome in outcomes) == {None: 1, "interrupted": 2}


def test_a_schedule_of_thousands_is_sent_on_time() -> None:
    from loadgen.workload.workload import schedule

    server = Server(seconds=0.001, workers=99)
    shots = schedule(Workload(arrivals=Constant(rate=100), seconds=50))
    outcomes = run_virtually(run_open(shots, server))
    assert len(outcomes) == 5000
    assert max(abs(o.sent_at - o.shot.at) for o in outcomes) < 1e-9
