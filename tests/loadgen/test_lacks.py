"""What this machine lacks is the generator's own, and does not count against a server."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from rich.console import Console

from loadgen.outcomes.lacks import lack_of
from loadgen.outcomes.limits import Limits
from loadgen.outcomes.outcome import Outcome
from loadgen.report.page.findings import warnings
from loadgen.report.page.table import render_table
from loadgen.report.statistics.slo import Absolute
from loadgen.report.statistics.summary import summarise
from loadgen.runs.find_rate import Trial
from loadgen.runs.plan import Plan
from loadgen.runs.session import OTHER_FILES, Session
from loadgen.runs.tally import Tally
from loadgen.runs.trial import Trials
from loadgen.targets.base import Answer
from loadgen.targets.choose import TargetOptions
from loadgen.targets.http import HttpTarget
from loadgen.workload.arrivals import Constant
from loadgen.workload.workload import Workload
from shared.errors import InvalidRequest, Misconfigured
from tests.conftest import run
from tests.loadgen.report.shots import outcome
from tests.loadgen.servers import Server, shot
from tests.loadgen.virtual_time import run_virtually

UNSENT = Answer("lost", "file_descriptors")


@contextmanager
def no_file_left() -> Iterator[None]:
    """Nothing more can be opened by this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
        os.close(spare)
        holes = []
        while True:  # lower numbers that are free
            try:
                holes.append(os.dup(0))
            except OSError:
                break
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for hole in holes:
                os.close(hole)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def refused(error: OSError) -> aiohttp.ClientConnectorError:
    """As the client library tells it."""
    key = ConnectionKey("127.0.0.1", 9, False, True, None, None, None)
    told = aiohttp.ClientConnectorError(key, error)
    told.__cause__ = error
    return told


@pytest.mark.parametrize(
    ("number", "lack"),
    [
        (errno.EMFILE, "file_descriptors"),
        (errno.ENFILE, "file_descriptors"),
        (errno.EADDRNOTAVAIL, "local_ports"),
        (errno.ENOBUFS, "local_memory"),
        (errno.ECONNREFUSED, None),
        (errno.ECONNRESET, None),
        (errno.EHOSTUNREACH, None),
    ],
)
def test_an_error_of_this_machine_is_told_from_the_servers(number: int, lack: str | None) -> None:
    error = OSError(number, os.strerror(number))
    assert lack_of(error) == lack
    assert lack_of(refused(error)) == lack
    deeper = InvalidRequest("controls", "a.png", "a file that can be read")
    deeper.__cause__ = error
    assert lack_of(deeper) == lack


def test_an_error_that_hides_its_number_is_ours_only_while_no_file_can_be_opened() -> None:
    unknown = refused(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    several = refused(OSError("Multiple exceptions: [Errno 111] refused, [Errno 24] files"))
    assert lack_of(unknown) is lack_of(several) is None
    with no_file_left():
        assert lack_of(unknown) == lack_of(several) == "file_descriptors"
        assert lack_of(refused(ConnectionRefusedError(errno.ECONNREFUSED, "no"))) is None


def test_a_request_that_could_not_be_sent_for_want_of_a_file_is_lost_by_that_name() -> None:
    async def scenario() -> Answer:
        async with HttpTarget.connect("http://127.0.0.1:9") as target:
            with no_file_left():
                return await target.send(shot())

    assert run(scenario()) == UNSENT


def unsent() -> Outcome:
    one = outcome(status="lost")
    return Outcome(one.shot, one.sent_at, one.ended_at, "lost", "file_descriptors", 0, 0)


def test_what_could_not_be_sent_is_listed_and_counts_nowhere() -> None:
    outcomes = [outcome(), outcome(status="failed"), unsent(), unsent()]
    said, without = (summarise(part, [], Absolute(2.0), 10.0) for part in (outcomes, outcomes[:2]))
    assert said.overall == without.overall
    assert said.by_tenant == without.by_tenant
    assert said.timeline == without.timeline
    assert said.offered_per_second == without.offered_per_second
    assert [(one.status, one.failure, one.count) for one in said.failures] == [
        ("lost", "file_descriptors", 2),
        ("failed", "failed_by_test", 1),
    ]
    [warning] = warnings(said)
    assert warning.startswith("2 requests were not sent, and do not count: this machine ran out")
    console = Console(record=True, width=120)
    console.print(render_table(said))
    assert "ulimit -n" in console.export_text()
    tally = Tally(Absolute(2.0))
    for one in outcomes:
        tally.ended(one)
    view = tally.view(1.0)
    assert (view.done, view.failed, view.attainment) == (1, 1, 0.5)


def test_a_search_does_not_judge_a_rate_that_it_could_not_offer() -> None:
    async def scenario() -> Trial:
        server = Server(seconds=0.1, answers={3: UNSENT})
        workload = Workload(arrivals=Constant(rate=1.0), seconds=10.0)
        return await Trials(workload, server, Absolute(2.0))(2.0)

    with pytest.raises(Misconfigured, match=r"1 of \d+ requests at 2\.000/s could not be sent: "):
        run_virtually(scenario())


@pytest.mark.parametrize(("kind", "told"), [("darkroom", True), ("nats", False)])
def test_a_run_makes_room_for_its_connections_and_says_where_it_could_not(
    kind: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def raise_file_limit(needed: int) -> int:
        asked.append(needed)
        return 256

    monkeypatch.setattr("loadgen.runs.session.raise_file_limit", raise_file_limit)
    console = Console(record=True, width=200)
    options = TargetOptions(kind="nats" if kind == "nats" else "darkroom", url="x")
    for plan in (
        Plan(target=options, workload=Workload(), limits=Limits(in_flight=3000)),
        Plan(target=options, workload=Workload(), users=500),
    ):
        Session(plan, console)._raise_file_limit()
    text = console.export_text()
    assert asked == ([3000 + OTHER_FILES, 500 + OTHER_FILES] if told else [])
    assert ("may open 256 files" in text) is told
