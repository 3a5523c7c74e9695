"""The fleet's own nats-server, started again on the same port and directory when it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from services.gateway.http.certificate import server_context
from services.gateway.http.watched_file import Followed, keep_following
from shared.bus.embedded import NatsServer, ServerAccess, nats_server, reconfigure
from shared.errors import Misconfigured
from shared.host.tasks import alongside
from shared.policy.restarts import Exit, GiveUp, History, RestartPolicy, after_exit
from shared.tensors.owners import start_time

LOOK_SECONDS: Final = 0.25
"""Pause between two looks whether the server still runs."""

Access = Callable[[], ServerAccess]
"""Reads who may use the server, and its certificate, as the files are now."""


class BusServer:
    """`url` stays the same however often the server is restarted."""

    def __init__(
        self, directory: Path, port: int | None, host: str, access: Access | None = None
    ) -> None:
        """`access`: who may use it, asked again and again; None: whoever reaches it. Raises
        `Misconfigured` if it is of no use."""
        self._directory = directory
        self._host = host
        self._port = port
        self._access: ServerAccess | None = None
        self._server: NatsServer | None = None
        self.files: list[Followed] = []
        if access is not None:
            self._access = access()
            read, use = partial(_content, access), partial(self._use, access)
            self.files = [Followed("keys and certificate of the bus", read, use)]
        self._up = asyncio.Event()
        self.url = ""
        self.pid = 0
        self.restarts = 0

    def __repr__(self) -> str:
        return f"<BusServer {self.url} pid={self.pid} restarts={self.restarts}>"

    async def started(self) -> None:
        await self._up.wait()

    async def keep_running(self) -> None:
        """Until cancelled, which stops the server. Raises `Misconfigured` or `BusUnavailable` if
        it does not start."""
        history = History(ever_ready=True)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            async with nats_server(
                self._directory, self._host, self._port, access=self._access
            ) as server:
                self._note(server)
                async with alongside(keep_following(self.files)):
                    await _end_of(server.pid)
            self._server = None
            end = Exit(loop.time() - began, was_ready=True)
            history, decision = after_exit(history, end, RestartPolicy())
            assert not isinstance(decision, GiveUp)  # what did work once comes back
            self.restarts += 1
            await asyncio.sleep(decision.after)

    def renew(self) -> None:
        """Go by its access as that is now, without waiting for the next look."""
        for file in self.files:
            file.refresh()

    def _note(self, server: NatsServer) -> None:
        self._server = server
        self.url, self.pid, self._port = server.url, server.pid, server.port
        self._up.set()

    def _use(self, asked: Access, content: bytes) -> None:
        """What the files say counts from now on. Raises `Misconfigured`."""
        access = asked()
        if access.certificate is not None and access.key is not None:
            server_context(str(access.certificate), str(access.key), ("certificate", "key"))
        if (access.certificate is None) != (self._access is None or not self._access.certificate):
            raise Misconfigured("TLS is turned on and off by a restart of the fleet")
        self._access = access
        if self._server is not None:
            reconfigure(self._server, self._directory, self._host, access)


def _content(asked: Access) -> bytes:
    """Of all its files."""
    access = asked()
    try:
        files = [file.read_bytes() for file in (access.certificate, access.key) if file]
    except OSError as error:
        raise Misconfigured(f"the bus's certificate cannot be read: {error}") from error
    return b"\0".join((access.authorization.encode(), *files))


async def _end_of(pid: int) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if start_time(pid) is None:
            return


@asynccontextmanager
async def bus_server(
    directory: Path,
    port: int | None = None,
    host: str = "127.0.0.1",
    access: Access | None = None,
) -> AsyncIterator[BusServer]:
    """A server that answers when the context is entered, and is gone when it is left. `access`: who
    may use it, and its certificate, also as they change; None: whoever reaches it."""
    server = BusServer(directory, port, host, access)
    async with alongside(server.keep_running()):
        await server.started()
        yield server
