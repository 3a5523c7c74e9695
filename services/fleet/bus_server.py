"""The fleet's own nats-server, started again on the same port and directory when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.fleet.restarts import Exit, GiveUp, History, RestartPolicy, after_exit
from services.fleet.tasks import alongside
from shared.bus.embedded import NatsServer, ServerAccess, nats_server
from shared.tensors.owners import start_time

LOOK_SECONDS: Final = 0.25
"""Pause between two looks whether the server still runs."""


class BusServer:
    """`url` stays the same however often the server is restarted."""

    def __init__(
        self, directory: Path, port: int | None, host: str, access: ServerAccess | None
    ) -> None:
        self._directory = directory
        self._host = host
        self._port = port
        self._access = access
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
                await _end_of(server.pid)
            end = Exit(loop.time() - began, was_ready=True)
            history, decision = after_exit(history, end, RestartPolicy())
            assert not isinstance(decision, GiveUp)  # what did work once comes back
            self.restarts += 1
            await asyncio.sleep(decision.after)

    def _note(self, server: NatsServer) -> None:
        self.url, self.pid, self._port = server.url, server.pid, server.port
        self._up.set()


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
    access: ServerAccess | None = None,
) -> AsyncIterator[BusServer]:
    """A server that answers when the context is entered, and is gone when it is left. `access`:
    who may use it; None: whoever reaches it."""
    server = BusServer(directory, port, host, access)
    async with alongside(server.keep_running()):
        await server.started()
        yield server
