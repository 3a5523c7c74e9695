"""Tensors between hosts: whoever needs one pulls it, over a plain TCP socket, from the host whose
arena holds it.

    request   length (u32), then the handle as MessagePack
    answer    status (u8), length (u64), then the tensor's bytes (status 0) or why it is lost (1)

One request per connection. Little-endian. There is no authentication: listen on loopback, or on a
network that only these hosts are in.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from zlib import crc32

import msgspec

from shared.errors import HandleLost
from shared.tensors.handle import Buffer, TensorHandle
from shared.tensors.reader import ArenaReader
from shared.tensors.transport import ArenaTransport

CONNECTIONS: Final = 16
"""Answered at a time, each with one tensor in memory; further ones wait to be accepted."""
REQUEST_LIMIT: Final = 4096
"""Bytes of a request."""
PULL_SECONDS: Final = 10.0
"""Without a byte of progress, on the side that pulls."""
ANSWER_SECONDS: Final = 60.0
"""For a whole answer, on the side that is asked."""

_REQUEST: Final = struct.Struct("<I")
_ANSWER: Final = struct.Struct("<BQ")
_FOUND: Final = 0
_LOST: Final = 1

log = logging.getLogger(__name__)


class TcpTransport:
    """Shared memory where both are on one host, a TCP pull where they are not.

    `address` is where `serving` serves the local arena; it travels in every handle."""

    def __init__(self, local: ArenaTransport, address: str) -> None:
        self._local = local
        self._address = address

    @property
    def name(self) -> str:
        return self._local.name

    def put(
        self,
        data: Buffer,
        dtype: str,
        shape: tuple[int, ...],
        *,
        job_id: str,
        attempt: int,
        lifetime: float,
    ) -> TensorHandle:
        handle = self._local.put(
            data, dtype, shape, job_id=job_id, attempt=attempt, lifetime=lifetime
        )
        if handle.slot is None:
            return handle
        place = msgspec.structs.replace(handle.slot, address=self._address)
        return msgspec.structs.replace(handle, slot=place)

    def get(self, handle: TensorHandle) -> bytearray:
        place = handle.slot
        if place is None or not place.address or self._local.reader.holds(place):
            return self._local.get(handle)
        return pull(place.address, handle)

    def free(self, handle: TensorHandle) -> bool:
        return self._local.free(handle)

    def release_job(self, job_id: str) -> int:
        return self._local.release_job(job_id)

    def expire(self, now: float) -> int:
        return self._local.expire(now)

    def close(self) -> None:
        self._local.close()

    def __repr__(self) -> str:
        return f"<TcpTransport at {self._address}, {self._local!r}>"


def pull(address: str, handle: TensorHandle) -> bytearray:
    """The tensor behind `handle` from the server at `address`. Blocks. Raises `HandleLost`."""
    try:
        request = msgspec.msgpack.encode(handle)
        with socket.create_connection(_host_and_port(address), PULL_SECONDS) as connection:
            connection.sendall(_REQUEST.pack(len(request)) + request)
            status, length = _ANSWER.unpack(_receive(connection, _ANSWER.size))
            expected = handle.nbytes if status == _FOUND else REQUEST_LIMIT
            if length > expected:
                raise HandleLost(handle.name, f"{address} answered with {length} bytes")
            data = _receive(connection, length)
    except (OSError, ValueError, OverflowError) as error:
        raise HandleLost(handle.name, f"{address} did not answer: {error}") from error
    if status != _FOUND:
        raise HandleLost(handle.name, f"{address} says: {data.decode(errors='replace')}")
    if length != handle.nbytes or crc32(data) != handle.checksum:
        raise HandleLost(handle.name, f"{address} answered with other bytes")
    return data


@asynccontextmanager
async def serving(
    reader: ArenaReader, host: str = "127.0.0.1", port: int = 0, advertise: str | None = None
) -> AsyncIterator[str]:
    """Serve what `reader` can read while the context is open; port 0 is any free one.

    Yields the address for `TcpTransport`, of the host that `advertise` names (`host` otherwise)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        listening.setblocking(False)
        bound = listening.getsockname()[1]
        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(_accept(reader, listening))
            try:
                yield f"{advertise or host}:{bound}"
            finally:
                accepting.cancel()


async def _accept(reader: ArenaReader, listening: socket.socket) -> None:
    room = asyncio.Semaphore(CONNECTIONS)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        while True:
            await room.acquire()
            connection, _ = await loop.sock_accept(listening)
            task = tasks.create_task(_serve(reader, connection))
            task.add_done_callback(lambda _: room.release())


async def _serve(reader: ArenaReader, connection: socket.socket) -> None:
    with connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await _answer(reader, connection)
        except (OSError, EOFError, TimeoutError, msgspec.MsgspecError) as error:
            # Whoever asked notices by itself: its connection ends.
            log.warning("a pull failed: %s: %s", type(error).__name__, error)


async def _answer(reader: ArenaReader, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    (length,) = _REQUEST.unpack(await _receive_async(connection, _REQUEST.size))
    if length > REQUEST_LIMIT:
        raise EOFError(f"a request of {length} bytes is over the limit of {REQUEST_LIMIT}")
    request = await _receive_async(connection, length)
    handle = msgspec.msgpack.decode(request, type=TensorHandle)
    try:
        status, data = _FOUND, await asyncio.to_thread(reader.read, handle)
    except HandleLost as lost:
        status, data = _LOST, bytearray(str(lost.fields["reason"]).encode()[:REQUEST_LIMIT])
    await loop.sock_sendall(connection, _ANSWER.pack(status, len(data)))
    await loop.sock_sendall(connection, data)


async def _receive_async(connection: socket.socket, nbytes: int) -> bytearray:
    data = bytearray(nbytes)
    view = memoryview(data)
    while view:
        got = await asyncio.get_running_loop().sock_recv_into(connection, view)
        if got == 0:
            raise EOFError("the connection ended early")
        view = view[got:]
    return data


def _receive(connection: socket.socket, nbytes: int) -> bytearray:
    data = bytearray(nbytes)
    view = memoryview(data)
    while view:
        got = connection.recv_into(view)
        if got == 0:
            raise OSError("the connection ended early")
        view = view[got:]
    return data


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
