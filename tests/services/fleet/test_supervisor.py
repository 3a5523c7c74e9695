"""The supervisor with real, tiny child processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from services.fleet.plan.processes import Crew, ProcessSpec
from services.fleet.supervisor.child import Child
from services.fleet.supervisor.supervisor import Supervisor, supervised
from shared.errors import Misconfigured
from shared.host.exits import MISCONFIGURED
from shared.policy.restarts import RestartPolicy
from tests.conftest import HANG_SECONDS, eventually, run

QUICK = RestartPolicy(first=0.01, longest=0.05)
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
WAYS = ("executed", "forked")
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How processes are started."""
    return str(request.param)


def spec(name: str, code: str, modules: Path | None = None) -> ProcessSpec:
    """Runs `code`; where there is a directory for `modules`, as a module, which can be forked."""
    path = os.pathsep.join([str(modules), *sys.path])
    command = (sys.executable, "-c", code)
    if modules is not None:
        modules.mkdir(parents=True, exist_ok=True)
        module = name.replace("-", "_")
        (modules / f"{module}.py").write_text(f"if __name__ == '__main__':\n    exec({code!r})\n")
        command = (sys.executable, "-m", module)
    return ProcessSpec(
        name=name, service=name, command=command, environment=os.environ | {"PYTHONPATH": path}
    )


def said_up(supervisors: list[Supervisor]) -> Collection[int]:
    """Ready is who printed `up` since it was started last."""
    return {
        child.pid
        for child in supervisors[0].children
        if child.pid is not None and child.log.tail().endswith("up")
    }


def alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


async def started(supervisor: Supervisor) -> list[int]:
    await supervisor.ready(within=HANG_SECONDS)
    return [child.pid for child in supervisor.children if child.pid is not None]


def fleet_of(
    path: Path, *codes: str, patience: float = 10.0, way: str = "executed"
) -> tuple[AbstractAsyncContextManager[Supervisor], list[Supervisor]]:
    """A fleet that runs `codes`, and the list its probe looks into for the supervisor."""
    known: list[Supervisor] = []
    modules = path / "modules" if way == "forked" else None

    async def probe() -> Collection[int]:
        return said_up(known)

    context = supervised(
        Crew([spec(f"child-{index}", code, modules) for index, code in enumerate(codes)]),
        probe,
        path,
        policy=QUICK,
        patience=patience,
    )
    return context, known


def test_stopping_leaves_no_process_behind(tmp_path: Path, way: str) -> None:
    async def scenario() -> list[int]:
        context, known = fleet_of(tmp_path, SLEEPER, SLEEPER, way=way)
        async with context as supervisor:
            known.append(supervisor)
            return await started(supervisor)

    pids = run(scenario())
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def test_there_are_as_many_processes_as_are_wanted(tmp_path: Path, way: str) -> None:
    """Of three that were planned; one of them cannot be got to work, and harms nobody."""
    modules = tmp_path / "modules" if way == "forked" else None
    codes = (SLEEPER, SLEEPER, "raise SystemExit(3)")
    planned = [
        replace(spec(f"child-{number}", code, modules), service="one")
        for number, code in enumerate(codes)
    ]

    async def scenario() -> None:
        known: list[Supervisor] = []

        async def probe() -> Collection[int]:
            return said_up(known)

        def names() -> list[str]:
            return [child.spec.name for child in known[0].children]

        async def is_alone() -> bool:
            return names() == ["child-0"]

        async def are_two() -> bool:
            return names() == ["child-0", "child-1"]

        context = supervised(Crew(planned[:1], planned[1:]), probe, tmp_path, policy=QUICK)
        async with context as supervisor:
            known.append(supervisor)
            [first] = await started(supervisor)
            supervisor.resize("one", 3)
            supervisor.resize("one", 3)
            await eventually(are_two)
            await started(supervisor)
            second = supervisor.children[1].pid
            supervisor.resize("other", 0)
            supervisor.resize("one", 1)
            supervisor.resize("one", 1)
            await eventually(is_alone)
            assert not alive(second)
            assert await started(supervisor) == [first]
            supervisor.resize("one", 2)
            assert names() == ["child-0", "child-1"]
            await started(supervisor)

    run(scenario())


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, way: str) -> None:
    async def scenario() -> list[int]:
        context, known = fleet_of(tmp_path, STUBBORN, patience=0.1, way=way)
        async with context as supervisor:
            known.append(supervisor)
            return await started(supervisor)

    assert not any(alive(pid) for pid in run(scenario()))


def test_what_a_process_started_itself_goes_with_it(tmp_path: Path, way: str) -> None:
    async def scenario() -> int:
        context, known = fleet_of(tmp_path, PARENT, way=way)
        async with context as supervisor:
            known.append(supervisor)
            (leader,) = await started(supervisor)
            await eventually(lambda: _has_company(leader))
            return leader

    async def gone(group: int) -> None:
        await eventually(lambda: _is_empty(group))

    run(gone(run(scenario())))


async def _has_company(group: int) -> bool:
    return len(_members(group)) == 2


async def _is_empty(group: int) -> bool:
    return not _members(group)


def _members(group: int) -> list[int]:
    """Pids in process group `group`, without zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            pid, _, rest = entry.read_text().partition(" ")
            state, _, pgid, *_ = rest.rpartition(")")[2].split()
            if int(pgid) == group and state != "Z":
                found.append(int(pid))
    return found


def test_a_crashed_process_is_started_again_and_counted(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        context, known = fleet_of(tmp_path, SLEEPER, way=way)
        async with context as supervisor:
            known.append(supervisor)
            (first,) = await started(supervisor)
            os.kill(first, 9)
            child = supervisor.children[0]
            await eventually(lambda: _restarted(supervisor, first))
            assert child.restarts == 1
            assert "ended with code -9" in child.log.tail()

    run(scenario())


async def _restarted(supervisor: Supervisor, first: int) -> bool:
    child = supervisor.children[0]
    return child.state == "ready" and child.pid not in (None, first)


def test_a_process_that_never_works_is_named_with_its_log(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        context, known = fleet_of(tmp_path, "print('no such model'); raise SystemExit(3)", way=way)
        async with context as supervisor:
            known.append(supervisor)
            await supervisor.ready(within=HANG_SECONDS)

    with pytest.raises(Misconfigured, match=r"(?s)child-0 ended 3 times.*code 3.*no such model"):
        run(scenario())


def test_a_process_that_says_it_is_misconfigured_is_started_once_and_has_the_word(
    tmp_path: Path,
    way: str,
) -> None:
    says = "import sys; print('noise'); sys.stdout.flush(); "
    says += "print('darkroom: no such model', file=sys.stderr); print('more noise'); "
    says += f"raise SystemExit({MISCONFIGURED})"

    async def scenario() -> None:
        context, known = fleet_of(tmp_path, SLEEPER, says, way=way)
        async with context as supervisor:
            known.append(supervisor)
            await supervisor.ready(within=45.0)

    with pytest.raises(Misconfigured) as refused:
        run(scenario())
    assert refused.value.message == "child-1: no such model"
    assert (tmp_path / "child-1.log").read_text().count("darkroom: no such model") == 1


def test_what_worked_once_is_started_again_although_it_is_misconfigured_now(
    tmp_path: Path, way: str
) -> None:
    flag = tmp_path / "worked"
    code = f"""
import pathlib, sys
if pathlib.Path({str(flag)!r}).exists():
    print("darkroom: the model is gone")
    sys.exit({MISCONFIGURED})
pathlib.Path({str(flag)!r}).touch()
{SLEEPER}
"""

    async def scenario() -> None:
        context, known = fleet_of(tmp_path / "logs", code, way=way)
        async with context as supervisor:
            known.append(supervisor)
            [pid] = await started(supervisor)
            os.kill(pid, signal.SIGKILL)
            child = supervisor.children[0]
            await eventually(lambda: _tried(child, 3), within=45)
            assert child.why == "the model is gone"

    run(scenario())


async def _tried(child: Child, restarts: int) -> bool:
    return child.restarts >= restarts and child.state == "backing off"


def test_a_process_that_is_never_ready_is_named_with_its_log(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        quiet = "import time; print('thinking', flush=True); time.sleep(600)"
        context, known = fleet_of(tmp_path, quiet, way=way)
        async with context as supervisor:
            known.append(supervisor)
            await eventually(lambda: _logged(supervisor, "thinking"))
            await supervisor.ready(within=0.05)

    with pytest.raises(Misconfigured, match=r"(?s)child-0 is not ready.*thinking"):
        run(scenario())


async def _logged(supervisor: Supervisor, text: str) -> bool:
    return text in supervisor.children[0].log.tail()


def test_an_error_inside_comes_out_as_itself_after_everything_stopped(
    tmp_path: Path, way: str
) -> None:
    pids: list[int] = []

    async def scenario() -> None:
        context, known = fleet_of(tmp_path, SLEEPER, way=way)
        async with context as supervisor:
            known.append(supervisor)
            pids.extend(await started(supervisor))
            raise LookupError("the job's own trouble")

    with pytest.raises(LookupError, match="own trouble"):
        run(scenario())
    assert not any(alive(pid) for pid in pids)


def test_cancelling_whoever_uses_the_fleet_stops_it(tmp_path: Path, way: str) -> None:
    pids: list[int] = []

    async def use() -> None:
        context, known = fleet_of(tmp_path, SLEEPER, way=way)
        async with context as supervisor:
            known.append(supervisor)
            pids.extend(await started(supervisor))
            await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(use())
        await eventually(lambda: _nonempty(pids))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())
    assert not any(alive(pid) for pid in pids)


async def _nonempty(pids: list[int]) -> bool:
    return bool(pids)


def test_nothing_outlives_a_fleet_that_is_killed(tmp_path: Path, way: str) -> None:
    program = f"""
import asyncio, pathlib
from tests.services.fleet.test_supervisor import SLEEPER, fleet_of, started

async def main():
    context, known = fleet_of(pathlib.Path({str(tmp_path)!r}), SLEEPER, way={way!r})
    async with context as supervisor:
        known.append(supervisor)
        print(*await started(supervisor), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    fleet = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert fleet.stdout is not None
    with fleet, fleet.stdout:
        (pid,) = map(int, fleet.stdout.readline().split())
        assert alive(pid)
        fleet.kill()

    async def gone() -> bool:
        return not _members(pid)

    run(eventually(gone))
