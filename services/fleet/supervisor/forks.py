"""The fleet's fork server: started when it is needed first, and again after its end."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from services.fleet.plan.processes import ProcessSpec
from shared.host.die_with_parent import command_that_dies_with_us
from shared.host.forking.adoption import adopting_orphans
from shared.host.forking.messages import (
    LONGEST,
    ForkReply,
    ForkRequest,
    packed,
    server_command,
)

FORK_SECONDS: Final = 120.0
"""How long a fork may take; the first one of a service waits for what it imports."""
LOG: Final = "fork_server.log"
OWN: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""In the server's environment: NumPy's library would start threads when it is imported."""
READ_LATE: Final = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables that nothing reads while it is imported, beside our own: services set their threads
themselves (`torch_setup.py`), and CUDA is initialised when it is used."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ForkReply).decode


class NotForked(Exception):
    """Says why. The process can still be started in the usual way."""


def can_fork() -> bool:
    """This system has what is needed to be told of the ends of adopted processes."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # a kernel before 5.3, or a sandbox
        return False
    return True


def in_common(environments: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The variables that have the same value in all of them."""
    first, *others = environments
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def why_not(command: Sequence[str], environment: Mapping[str, str], of: Mapping[str, str]) -> str:
    """Why `command` cannot be forked from a server with the environment `of`; empty: it can be."""
    if len(command) < 3 or tuple(command[:2]) != (sys.executable, "-m"):
        return "it is no module of this Python"
    late = {
        name
        for name in environment.keys() | of.keys()
        if name.startswith("DARKROOM_") or name in READ_LATE
    }
    differing = sorted(dict(environment.items() ^ of.items()).keys() - late)
    return f"it has another {', '.join(differing)}" if differing else ""


class Forks:
    """Processes forked from a server, one at a time, as children of this process. To be closed."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        """`environment` of the server: what it imports reads it."""
        self._environment = environment
        self._log = logs / LOG
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._adopting = ExitStack()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Forks of server {self._process.pid if self._process else None}>"

    async def start(self, spec: ProcessSpec, output: int) -> int:
        """The pid of a process of `spec`, which writes to descriptor `output`. Raises
        `NotForked`."""
        if reason := why_not(spec.command, spec.environment, self._environment):
            raise NotForked(reason)
        request = ForkRequest(spec.command[2:], packed(spec.environment), os.getpid())
        async with self._turn:
            if self._closed:
                raise NotForked("the fleet is leaving")
            try:
                async with asyncio.timeout(FORK_SECONDS):
                    reply = await self._answer(_encode(request), output)
            except BaseException as error:
                await asyncio.shield(self._end())  # who knows what it is about
                if isinstance(error, OSError):  # a TimeoutError as well
                    raise NotForked(f"the fork server failed: {error!r}") from error
                raise
        if not reply.pid:
            raise NotForked(reply.refusal)
        with suppress(OSError):  # as it does itself; whoever is first
            os.setpgid(reply.pid, reply.pid)
        return reply.pid

    async def close(self) -> None:
        """End the server, and whatever it was about to begin."""
        self._closed = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
        async with self._turn:
            await self._end()
        self._adopting.close()

    async def _answer(self, request: bytes, output: int) -> ForkReply:
        if self._channel is None:
            self._channel = await self._started()
        if self._closed:
            raise ConnectionResetError("the fleet is leaving")
        socket.send_fds(self._channel, [request], [output])
        # Who gives up in the moment of the answer leaves it there, for `_kill_told`.
        await _until_readable(self._channel)
        answer = self._channel.recv(LONGEST)
        if not answer:
            raise ConnectionResetError("it ended")
        return _decode(answer)

    async def _started(self) -> socket.socket:
        """The channel to a new server."""
        self._adopting.close()
        self._adopting.enter_context(adopting_orphans())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, self._log.open("ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command_that_dies_with_us(server_command(theirs.fileno()), signal.SIGKILL),
                    env={**self._environment, **OWN},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        return ours

    async def _end(self) -> None:
        """Of the server, if there is one, and of what it was about to begin."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if channel is not None:
            with channel:
                _kill_told(channel)
        if process is not None:
            _kill_group(process.pid)


async def _until_readable(channel: socket.socket) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(channel, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(channel)


def _kill_told(channel: socket.socket) -> None:
    """What was forked, and nobody waited for."""
    with suppress(OSError):
        while answer := channel.recv(LONGEST):
            if pid := _decode(answer).pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _kill_group(leader: int) -> None:
    """What `leader` had forked when it ended, and told nobody of: children of ours by now."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-leader, 0)
