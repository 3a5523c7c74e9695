"""A process is started: forked where that can be done, else in the usual way."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from services.fleet.plan.processes import ProcessSpec
from services.fleet.supervisor.forks import Forks, NotForked
from shared.host.die_with_parent import command_that_dies_with_us

Write = Callable[[bytes], None]

REAP_SECONDS: Final = 0.05
"""Pause between two looks for the dead of a group."""
REAP_TIMES: Final = 20


@dataclass(slots=True)
class Launched:
    """A process that was started."""

    pid: int = 0
    code: int = 0
    """Exit code, or minus the signal that ended it; once it has `exited`."""
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    """At the end of its output: it, and whoever inherited that, have closed it."""
    transport: asyncio.BaseTransport | None = None
    """Of its output."""

    def signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        """Once it has exited, and its group was killed."""
        if self.transport is not None:
            self.transport.close()
        _reap(self.pid)

    def ended(self, code: int) -> None:
        self.code = code
        self.exited.set()


async def launch(spec: ProcessSpec, write: Write, forks: Forks | None) -> Launched:
    """A process of `spec` in a group of its own, whose output is given to `write`."""
    if forks is not None:
        try:
            return await forked(spec, write, forks)
        except NotForked:
            pass  # its imports may fail: then it says so itself
    return await executed(spec, write)


async def forked(spec: ProcessSpec, write: Write, forks: Forks) -> Launched:
    """Raises `NotForked`."""
    launched = Launched()
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    try:
        launched.transport, _ = await loop.connect_read_pipe(
            lambda: _Output(launched, write), os.fdopen(reading, "rb", 0)
        )
        try:
            launched.pid = await forks.start(spec, writing)
        except BaseException:
            launched.transport.close()
            raise
    finally:
        os.close(writing)
    _watch(launched)
    return launched


def _watch(launched: Launched) -> None:
    """Note the end of a child of this process."""
    loop = asyncio.get_running_loop()
    handle = os.pidfd_open(launched.pid)

    def ended() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        _, status = os.waitpid(launched.pid, 0)
        launched.ended(os.waitstatus_to_exitcode(status))

    loop.add_reader(handle, ended)


async def executed(spec: ProcessSpec, write: Write) -> Launched:
    launched = Launched()
    transport, _ = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Watch(launched, write),
        *command_that_dies_with_us(spec.command, signal.SIGKILL),
        env=spec.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Its own group: Ctrl-C in a terminal reaches the fleet alone, which stops it in order.
        process_group=0,
    )
    launched.transport, launched.pid = transport, transport.get_pid()
    return launched


class _Output(asyncio.Protocol):
    """What a forked process writes."""

    def __init__(self, launched: Launched, write: Write) -> None:
        self._launched = launched
        self._write = write

    def data_received(self, data: bytes) -> None:
        self._write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._launched.silent.set()


class _Watch(asyncio.SubprocessProtocol):
    """What an executed process writes, and its end. (`Process.wait` would go on waiting for whoever
    inherited the pipe.)"""

    def __init__(self, launched: Launched, write: Write) -> None:
        self._launched = launched
        self._write = write
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._write(data)

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        self._launched.silent.set()

    def process_exited(self) -> None:
        assert self._transport is not None
        self._launched.ended(self._transport.get_returncode() or 0)


def _reap(group: int, times: int = REAP_TIMES) -> None:
    """Whoever a process left behind is this process's child where that adopts orphans: take note
    of their ends, or they stay in the kernel's table."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
    if times:
        asyncio.get_running_loop().call_later(REAP_SECONDS, _reap, group, times - 1)
