"""Three nats-servers that keep every stream three times, on this machine."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.fleet.plan.checks import free_port
from shared import subjects
from shared.bus.base import Bus
from shared.bus.embedded import HEADER_ROOM, MAX_PAYLOAD, find_binary
from shared.bus.nats import api, connect
from shared.bus.topology import TOPOLOGY
from shared.errors import DarkroomError
from shared.host.die_with_parent import command_that_dies_with_us
from tests.conftest import HANG_SECONDS

HOST: Final = "127.0.0.1"
SIZE: Final = 3
HEALTHY_SECONDS: Final = HANG_SECONDS
STREAMS: Final = (*(s.name for s in TOPOLOGY.streams), api.bucket_stream(subjects.RECORDS))
REQUEST_SECONDS: Final = 2.0


@dataclass(slots=True)
class Node:
    """One server: where it lies, and the process that it is at the moment."""

    name: str
    directory: Path
    port: int
    route: int
    process: asyncio.subprocess.Process | None = None


class ClusterBroker:
    """`restart` kills the server that leads the queue of work, and starts it again."""

    replicas = SIZE

    def __init__(self, directory: Path) -> None:
        self._nodes = [
            Node(f"n{number}", directory / f"n{number}", free_port(HOST), free_port(HOST))
            for number in range(1, SIZE + 1)
        ]
        self._bus: Bus | None = None

    @property
    def url(self) -> str:
        return ",".join(f"nats://{HOST}:{node.port}" for node in self._nodes)

    async def start(self) -> None:
        """Return when all three work together."""
        for node in self._nodes:
            await self._spawn(node)
        self._bus = await connect(self.url, "chaos-cluster", 60.0, SIZE)
        await self._bus.ensure(TOPOLOGY)
        await self.healthy()

    async def stop(self) -> None:
        if self._bus is not None:
            await self._bus.close()
        for node in self._nodes:
            if node.process is not None and node.process.returncode is None:
                node.process.kill()
                await node.process.wait()

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        leader = await self._leader()
        assert leader.process is not None
        os.kill(leader.process.pid, number)
        await leader.process.wait()
        await asyncio.sleep(2.0)  # the other two have to elect leaders, and serve without it
        await self._spawn(leader)
        await self.healthy()

    async def healthy(self) -> None:
        """Return when every stream has a leader, and two followers that have all it has."""
        async with asyncio.timeout(HEALTHY_SECONDS):
            for stream in STREAMS:
                while not await self._complete(stream):  # noqa: ASYNC110 (it has no event)
                    await asyncio.sleep(0.2)

    async def _complete(self, stream: str) -> bool:
        try:
            cluster = (await self._info(stream))["cluster"]
        except (DarkroomError, KeyError):
            return False
        followers = cluster.get("replicas", [])
        current = [f for f in followers if f.get("current") and not f.get("offline")]
        return bool(cluster.get("leader")) and len(current) == SIZE - 1

    async def _leader(self) -> Node:
        name = (await self._info(subjects.WORK))["cluster"]["leader"]
        return next(node for node in self._nodes if node.name == name)

    async def _info(self, stream: str) -> dict[str, Any]:
        assert self._bus is not None
        answer = await self._bus.request(f"{api.API}.STREAM.INFO.{stream}", b"", REQUEST_SECONDS)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def _spawn(self, node: Node) -> None:
        node.directory.mkdir(exist_ok=True, parents=True)
        config = node.directory / "server.conf"
        config.write_text(self._config(node))
        command = (str(find_binary()), "--config", str(config))
        node.process = await asyncio.create_subprocess_exec(
            *command_that_dies_with_us(command, signal.SIGTERM),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    def _config(self, node: Node) -> str:
        routes = [f"nats://{HOST}:{other.route}" for other in self._nodes if other is not node]
        return f"""
server_name: {node.name}
host: {HOST}
port: {node.port}
max_payload: {MAX_PAYLOAD + HEADER_ROOM}
max_pending: {16 * MAX_PAYLOAD}
log_file: {json.dumps(str(node.directory / "server.log"))}
jetstream {{ store_dir: {json.dumps(str(node.directory))} }}
cluster {{
  name: chaos
  host: {HOST}
  port: {node.route}
  routes: {json.dumps(routes)}
}}
"""


@contextlib.asynccontextmanager
async def cluster_broker(directory: Path) -> AsyncIterator[ClusterBroker]:
    broker = ClusterBroker(directory)
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()
