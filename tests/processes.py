"""`pytest --processes N`: units of tests (`units.py`) side by side in N processes, forked from the
one that has imported and collected everything, so that this is done once."""

import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final, NoReturn, cast

import pytest

from shared.host.die_with_parent import die_with
from tests.units import unit_of

TAKE: Final = "take"
"""A process asks for a unit, and gets the indices of its tests, or None: there are no more."""
START, REPORT, FINISH = "start", "report", "finish"
"""What a process tells of a test: its id and location; the report of a phase; as the first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=1, help="run units of tests side by side")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    count = session.config.getoption("processes")
    if count == 1 or session.testsfailed or session.config.getoption("collectonly"):
        return None  # as pytest does it
    run_in_processes(session, count)
    return True


def units_of(nodeids: Sequence[str]) -> list[list[int]]:
    """Indices of `nodeids`, by unit. They are in the order of `units.in_order`."""
    groups = groupby(range(len(nodeids)), key=lambda index: unit_of(nodeids[index]))
    return [list(unit) for _, unit in groups]


def run_in_processes(session: pytest.Session, count: int) -> None:
    """Run all tests of `session` in `count` forked processes, and hand on what they report."""
    units = deque(units_of([item.nodeid for item in session.items]))
    # Warnings of libraries about forks beside threads would be right.
    assert len(sys._current_frames()) == 1, "collecting the tests started a thread"
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    workers = [_forked(session, number) for number in range(min(count, len(units)))]
    try:
        _lead(session, workers, units)
    finally:
        for worker in workers:
            worker.interrupt()
        for worker in workers:
            worker.channel.close()
            worker.wait()
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


@dataclass
class Worker:
    """One of the processes, seen from the first."""

    pid: int
    channel: Connection
    unit: list[int]
    """Tests that it has been given, and has not begun yet."""
    test: str = ""
    """What it is at."""
    status: int | None = None
    """Exit status, once it was waited for."""

    def interrupt(self) -> None:
        """As Ctrl-C does: it leaves what its fixtures hold in order."""
        if self.status is None:
            os.kill(self.pid, signal.SIGINT)

    def wait(self) -> int:
        if self.status is None:
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return self.status


def _lead(session: pytest.Session, workers: Sequence[Worker], units: deque[list[int]]) -> None:
    """Until all units are done, or the session is to stop."""
    working = {worker.channel: worker for worker in workers}
    while working and not (session.shouldfail or session.shouldstop):
        for channel in wait(list(working)):
            worker = working[cast(Connection, channel)]
            try:
                what, *about = worker.channel.recv()
            except EOFError:
                del working[worker.channel]
                if worker.wait() or worker.unit:
                    _report_crash(session, worker)
                continue
            if what == TAKE:
                worker.unit = list(units.popleft()) if units else []
                worker.channel.send(worker.unit)
            else:
                _hand_on(session, worker, what, about)


def _hand_on(session: pytest.Session, worker: Worker, what: str, about: Sequence[Any]) -> None:
    hook = session.config.hook
    if what == START:
        worker.test, location = about
        worker.unit = worker.unit[1:]
        hook.pytest_runtest_logstart(nodeid=worker.test, location=location)
    elif what == REPORT:
        [data] = about
        report = hook.pytest_report_from_serializable(config=session.config, data=data)
        hook.pytest_runtest_logreport(report=report)
    else:
        nodeid, location = about
        hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)


def _report_crash(session: pytest.Session, worker: Worker) -> None:
    """As a failure of the test that `worker` was at."""
    left = [session.items[index].nodeid for index in worker.unit]
    said = f"its process of tests ended with {worker.status}"
    if left:
        said += f"; {len(left)} tests behind it were not run, {left[0]} to {left[-1]}"
    nodeid = worker.test or "<no test>"
    place = (nodeid.partition("::")[0], None, nodeid)
    report = pytest.TestReport(nodeid, place, {}, "failed", said, "call")
    session.config.hook.pytest_runtest_logreport(report=report)


def _forked(session: pytest.Session, number: int) -> Worker:
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return Worker(pid, ours, [])
    ours.close()
    _work(session, number, theirs, parent)


def _work(session: pytest.Session, number: int, channel: Connection, parent: int) -> NoReturn:
    code = 1
    try:
        die_with(parent, signal.SIGKILL)
        _separate(session.config, number)
        session.config.pluginmanager.register(_Teller(session.config, channel))
        _run_units(session, channel)
        code = 0
    except (KeyboardInterrupt, pytest.exit.Exception):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(BaseException):
            session._setupstate.teardown_exact(None)
    except BaseException:
        with suppress(BaseException):
            session.config.pluginmanager.getplugin("capturemanager").stop_global_capturing()
            traceback.print_exc()
    finally:
        os._exit(code)


def _separate(config: pytest.Config, number: int) -> None:
    """What a forked process must not have in common with its siblings: the terminal, the files that
    output is captured in, the directory of temporary files."""
    config.pluginmanager.unregister(name="terminalreporter")
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture.is_globally_capturing():
        capture.stop_global_capturing()
        capture.start_global_capturing()
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = factory.getbasetemp() / f"process-{number}"
    factory._basetemp.mkdir(mode=0o700)


def _run_units(session: pytest.Session, channel: Connection) -> None:
    while unit := _taken(channel):
        for index, following in zip(unit, [*unit[1:], None], strict=True):
            # Behind a unit all fixtures are torn down: a fleet that nobody uses takes time too.
            upcoming = None if following is None else session.items[following]
            item = session.items[index]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=upcoming)
            if session.shouldfail or session.shouldstop:
                raise KeyboardInterrupt


def _taken(channel: Connection) -> list[int]:
    channel.send((TAKE,))
    unit: list[int] = channel.recv()
    return unit


class _Teller:
    """Tells the first process what happens in this one."""

    def __init__(self, config: pytest.Config, channel: Connection) -> None:
        self._config = config
        self._channel = channel

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self._channel.send((START, nodeid, location))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._channel.send((REPORT, data))

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        self._channel.send((FINISH, nodeid, location))
