"""What is forked from the fork server, beside the same started in the usual way."""

import asyncio
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from services.fleet.plan.processes import ProcessSpec
from services.fleet.supervisor.forks import Forks, NotForked, can_fork, in_common, why_not
from services.fleet.supervisor.launch import Launched, executed, forked, launch
from tests.conftest import eventually, run

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")

ABOUT = """
import json, os, random, resource, signal, sys, threading

def preload():
    import decimal

if __name__ == "__main__":
    print(json.dumps({
        "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "name": __name__,
        "environment": dict(os.environ), "cwd": os.getcwd(), "mask": os.umask(0),
        "files": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:-1],
        "stdin": os.readlink("/proc/self/fd/0"),
        "signals": {str(n): str(signal.getsignal(n)) for n in signal.valid_signals()},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "leads": os.getpgrp() == os.getpid(), "parent": os.getppid(), "session": os.getsid(0),
        "threads": threading.active_count(), "nice": os.nice(0),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "command": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
        "title": open("/proc/self/comm").read().strip(),
        "preloaded": "decimal" in sys.modules,
    }))
"""
CHANCE = """
import json, random, secrets, tempfile, uuid
import numpy
if __name__ == "__main__":
    own = [random.random(), str(uuid.uuid4()), secrets.token_hex(8), numpy.random.random()]
    own += [next(tempfile._get_candidate_names()), numpy.random.default_rng().random()]
    print(json.dumps(own))
"""
THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
if __name__ == "__main__": print(threading.active_count())
"""
FILE = """
import os
os.open("/dev/zero", os.O_RDONLY)
if __name__ == "__main__": print("ran")
"""
BROKEN = "raise ImportError('no such library')"
TORCH = """
import json, os, sys, threading
from typing import Any
import torch
from shared.host.torch_setup import prepare_torch

computed()
def compute(found, before):
    found += computed(torch)
    found += [torch.get_num_threads(), len(os.listdir("/proc/self/task")) - before]

if __name__ == "__main__":
    prepare_torch(int(sys.argv[1]))
    found = []
    thread = threading.Thread(target=compute, args=(found, len(os.listdir("/proc/self/task"))))
    thread.start()
    thread.join()
    print(json.dumps([*found, torch.rand(1).item()]))
"""


def computed(torch: Any) -> list[float]:
    """By the two libraries that compute on their own threads: convolutions and products."""
    square = torch.linspace(-1.0, 1.0, 512 * 512).view(512, 512)
    images, kernels = square.reshape(1, 16, 128, 128), square.reshape(-1)[: 64 * 144]
    product = square @ square.cos()
    convolved = torch.nn.functional.conv2d(images, kernels.view(64, 16, 3, 3))
    return [float(one.double().abs().mean()) for one in (convolved, product)]


def spec(here: Path, code: str, *arguments: str, **variables: str) -> ProcessSpec:
    (here / "tiny.py").write_text(code)
    path = os.pathsep.join([str(here), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "DARKROOM_OWN": "é=1", **variables}
    return ProcessSpec("tiny", "tiny", (sys.executable, "-m", "tiny", *arguments), environment)


def without(environment: Mapping[str, str], variable: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != variable}


@asynccontextmanager
async def forks_of(one: ProcessSpec, here: Path) -> AsyncIterator[Forks]:
    forks = Forks(one.environment, here)
    try:
        yield forks
    finally:
        await forks.close()


async def said(launched: Launched, output: bytearray) -> str:
    await launched.exited.wait()
    await launched.silent.wait()
    launched.close()
    return output.decode()


async def both(one: ProcessSpec, here: Path) -> tuple[str, str]:
    """What it says when it is executed, and when it is forked."""
    outputs = bytearray(), bytearray()
    async with forks_of(one, here) as forks:
        first = await executed(one, outputs[0].extend)
        second = await forked(one, outputs[1].extend, forks)
        return await said(first, outputs[0]), await said(second, outputs[1])


def test_a_forked_process_finds_what_an_executed_one_finds(tmp_path: Path) -> None:
    one = spec(tmp_path, ABOUT, "first", "--second")
    plain, own = map(json.loads, run(both(one, tmp_path)))
    assert own["preloaded"]
    assert not plain["preloaded"]
    assert own["title"] == "tiny"
    for known in (plain, own):
        del known["preloaded"], known["title"]
    assert own == plain
    assert own["parent"] == os.getpid()


def test_a_process_is_forked_with_its_own_environment(tmp_path: Path) -> None:
    one = spec(tmp_path, "import os\nif __name__ == '__main__': print(os.getenv('DARKROOM_OWN'))")
    other = ProcessSpec("b", "b", one.command, {**one.environment, "DARKROOM_OWN": "2"})

    async def scenario() -> tuple[str, str]:
        outputs = bytearray(), bytearray()
        async with forks_of(one, tmp_path) as forks:
            first = await forked(one, outputs[0].extend, forks)
            second = await forked(other, outputs[1].extend, forks)
            return await said(first, outputs[0]), await said(second, outputs[1])

    assert run(scenario()) == ("é=1\n", "2\n")


def test_siblings_draw_different_numbers(tmp_path: Path) -> None:
    one = spec(tmp_path, CHANCE)

    async def scenario() -> list[list[Any]]:
        found = []
        async with forks_of(one, tmp_path) as forks:
            for _ in range(2):
                output = bytearray()
                found.append(
                    json.loads(await said(await forked(one, output.extend, forks), output))
                )
        return found

    first, second = run(scenario())
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    ("code", "why"),
    [(THREAD, "1 threads"), (FILE, "files open: /dev/zero"), (BROKEN, "no such library")],
    ids=["thread", "file", "error"],
)
def test_what_a_fork_would_not_do_justice_to_is_executed(
    tmp_path: Path, code: str, why: str
) -> None:
    one = spec(tmp_path, code)

    async def scenario() -> int:
        output = bytearray()
        async with forks_of(one, tmp_path) as forks:
            with pytest.raises(NotForked, match=why):
                await forked(one, output.extend, forks)
            launched = await launch(one, output.extend, forks)
            assert await said(launched, output)
            return launched.code

    assert run(scenario()) == (1 if code is BROKEN else 0)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(78)", 78),
        ("sys.exit('in words')", 1),
        ("raise LookupError('in words')", 1),
        ("os.kill(os.getpid(), 9)", -9),
        ("os._exit(70)", 70),
        ("pass", 0),
    ],
)
def test_a_forked_process_ends_as_an_executed_one(tmp_path: Path, end: str, code: int) -> None:
    one = spec(tmp_path, f"import os, sys\nif __name__ == '__main__': {end}")

    async def scenario() -> tuple[int, str]:
        output = bytearray()
        async with forks_of(one, tmp_path) as forks:
            launched = await forked(one, output.extend, forks)
            text = await said(launched, output)
            return launched.code, text

    found, text = run(scenario())
    assert found == code
    assert ("in words" in text) == ("in words" in end)


def test_the_end_of_the_server_ends_nothing_else(tmp_path: Path) -> None:
    sleeper = "import time\nif __name__ == '__main__': print('up', flush=True); time.sleep(600)"
    one = spec(tmp_path, sleeper)

    async def scenario() -> None:
        async with forks_of(one, tmp_path) as forks:
            output = bytearray()
            first = await forked(one, output.extend, forks)
            await eventually(lambda: _holds(bool(output)))
            # A service has the server's title for a moment.
            await eventually(
                lambda: _holds(len(_named("fork_server", children_of=os.getpid())) == 1)
            )
            [server] = _named("fork_server", children_of=os.getpid())
            os.kill(server, signal.SIGKILL)
            with pytest.raises(NotForked, match="server failed"):
                await forked(one, output.extend, forks)
            second = await launch(one, output.extend, forks)  # of a new one
            both = sorted([first.pid, second.pid])
            await eventually(lambda: _holds(_named("tiny", children_of=os.getpid()) == both))
            for launched in (first, second):
                assert not launched.exited.is_set()
                launched.signal_group(signal.SIGKILL)
                await said(launched, output)
                assert launched.code == -signal.SIGKILL
        await eventually(lambda: _holds(_named("fork_server", children_of=os.getpid()) == []))

    run(scenario())


async def _holds(condition: bool) -> bool:
    return condition


async def _nobody_named(title: str) -> bool:
    return _named(title, children_of=os.getpid()) == []


def _named(title: str, children_of: int) -> list[int]:
    """Pids of those that run: other tests' fleets may have left this process their dead."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = entry.read_text().partition(" (")
        except OSError:  # it ended meanwhile
            continue
        name, _, fields = rest.rpartition(") ")
        state, parent = fields.split()[:2]
        if name == title and state != "Z" and int(parent) == children_of:
            found.append(int(pid))
    return sorted(found)


def test_who_gives_up_waiting_for_a_fork_leaves_no_process(tmp_path: Path) -> None:
    one = spec(tmp_path, "import time\ntime.sleep(600)")  # while the server imports it

    async def scenario() -> None:
        async with forks_of(one, tmp_path) as forks:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await forked(one, lambda _: None, forks)
            for title in ("tiny", "fork_server"):
                await eventually(partial(_nobody_named, title))

    run(scenario())


def test_who_gives_up_in_the_moment_of_the_answer_leaves_no_process(tmp_path: Path) -> None:
    sleeper = "import time\nif __name__ == '__main__': time.sleep(600)"
    one = spec(tmp_path, sleeper)

    async def scenario() -> None:
        async with forks_of(one, tmp_path) as forks:
            output = bytearray()
            first = await forked(one, output.extend, forks)
            first.signal_group(signal.SIGKILL)
            await said(first, output)
            [server] = _named("fork_server", children_of=os.getpid())
            os.kill(server, signal.SIGSTOP)
            waiting = asyncio.ensure_future(forked(one, output.extend, forks))
            for _ in range(20):  # until it has asked
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0, waiting.cancel)
            os.kill(server, signal.SIGCONT)
            # The event loop does nothing until there is the answer, and then sees both at once.
            while not _named("tiny", children_of=os.getpid()):
                time.sleep(0.01)  # noqa: ASYNC251 (it is to be held up)
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await eventually(partial(_nobody_named, "tiny"))

    run(scenario())


def test_torch_computes_the_same_with_the_threads_that_it_is_told(tmp_path: Path) -> None:
    one = spec(tmp_path, TORCH.replace("computed()", inspect.getsource(computed)))
    one = replace(one, environment=without(one.environment, "OMP_NUM_THREADS"))

    async def scenario() -> list[list[float]]:
        found = []
        async with forks_of(one, tmp_path) as forks:
            for threads in ("1", "3"):
                asked, output = replace(one, command=(*one.command, threads)), bytearray()
                launched = await forked(asked, output.extend, forks)
                found.append(json.loads(await said(launched, output)))
        return found

    found = run(scenario())
    assert found[0].pop() != found[1].pop(), "siblings draw different numbers"
    for threads, (*numbers, told, seen) in zip((1, 3), found, strict=True):
        assert (told, seen) == (threads, threads)
        assert numbers == pytest.approx(computed(torch), rel=1e-5)


def test_what_all_environments_agree_on_is_the_servers() -> None:
    environments: list[Mapping[str, str]] = [{"A": "1", "B": "2", "C": "3"}, {"A": "1", "B": "4"}]
    assert in_common(environments) == {"A": "1"}


@pytest.mark.parametrize(
    ("command", "variables", "why"),
    [
        (("-m", "services.vae"), {"DARKROOM_THREADS": "1", "OMP_NUM_THREADS": "1"}, ""),
        (("-m", "services.vae"), {"HF_HOME": "/a"}, "it has another HF_HOME"),
        (("-c", "pass"), {}, "it is no module of this Python"),
        (("-m",), {}, "it is no module of this Python"),
    ],
)
def test_only_a_module_with_the_servers_environment_is_forked(
    command: tuple[str, ...], variables: dict[str, str], why: str
) -> None:
    assert why_not((sys.executable, *command), {"A": "1", **variables}, {"A": "1"}) == why
    assert why_not(("/bin/true", "-m", "a"), {}, {}) == "it is no module of this Python"
