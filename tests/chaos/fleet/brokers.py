"""nats-servers that a case may kill: one alone, or three of a cluster."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from shared.bus.embedded import NatsServer, nats_server


class Broker(Protocol):
    """`url` stays the same whatever is killed."""

    @property
    def url(self) -> str: ...

    @property
    def replicas(self) -> int: ...

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by this signal, and start it again with what it stored."""
        ...


class SingleBroker:
    """One server that comes back on its port with its store."""

    replicas = 1

    def __init__(self, directory: Path, stack: contextlib.AsyncExitStack, port: int | None) -> None:
        self._directory = directory
        self._stack = stack
        self._port = port
        self._server: NatsServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    async def start(self) -> None:
        again = nats_server(self._directory, port=self._port)
        self._server = await self._stack.enter_async_context(again)
        self._port = self._server.port

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)
        await self._stack.aclose()
        await self.start()


@contextlib.asynccontextmanager
async def single_broker(directory: Path, port: int | None = None) -> AsyncIterator[SingleBroker]:
    """On `port`, or on a free one."""
    async with contextlib.AsyncExitStack() as stack:
        broker = SingleBroker(directory, stack, port)
        await broker.start()
        yield broker
