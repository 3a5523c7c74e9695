"""Tensors between hosts: whoever needs one pulls it, over a plain TCP socket, from the host whose
arena holds it. `pull_protocol.py` has the words.

Both sides prove that they have the secret in DARKROOM_TENSOR_SECRET, unless another one is given.
Without a secret only loopback is listened on. Nothing is encrypted: that is the network's matter.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from zlib import crc32

import msgspec

from shared.errors import HandleLost
from shared.messages.handle import TensorHandle
from shared.security.binding import refuse_unprotected
from shared.tensors import pull_protocol as words
from shared.tensors.pull_protocol import Secret, secret_in_force
from shared.tensors.reader import ArenaReader

CONNECTIONS: Final = 16
"""Answered at a time, each with one tensor in memory; further ones wait to be accepted."""
REQUEST_LIMIT: Final = 4096
"""Bytes of a request."""
PULL_SECONDS: Final = 10.0
"""Without a byte of progress, on the side that pulls."""
ASK_SECONDS: Final = 5.0
"""For a whole request, on the side that is asked."""
ANSWER_SECONDS: Final = 60.0
"""For a whole answer, on the side that is asked."""

log = logging.getLogger(__name__)


def pull(address: str, handle: TensorHandle, secret: Secret | None = None) -> bytearray:
    """The tensor behind `handle` from the server at `address`. Blocks. Raises `HandleLost`."""
    try:
        with socket.create_connection(_host_and_port(address), PULL_SECONDS) as connection:
            status, data = _ask(connection, address, handle, secret)
    except (OSError, ValueError, OverflowError) as error:
        raise HandleLost(handle.name, f"{address} did not answer: {error}") from error
    if status != words.FOUND:
        raise HandleLost(handle.name, f"{address} says: {data.decode(errors='replace')}")
    if len(data) != handle.nbytes or crc32(data) != handle.checksum:
        raise HandleLost(handle.name, f"{address} answered with other bytes")
    return data


def _ask(
    connection: socket.socket, address: str, handle: TensorHandle, secret: Secret | None
) -> tuple[int, bytearray]:
    greeting = _receive(connection, words.GREETING.size)
    magic, wants_proof, served = words.GREETING.unpack(greeting)
    if magic != words.MAGIC:
        raise HandleLost(handle.name, f"{address} speaks another protocol")
    if wants_proof != (secret is not None):
        lacks = "we have" if secret is None else "the other side has"
        raise HandleLost(handle.name, f"{address}: {lacks} no DARKROOM_TENSOR_SECRET")
    request, asked = msgspec.msgpack.encode(handle), secrets.token_bytes(words.NONCE)
    proof = words.NO_PROOF if secret is None else secret.request(served, asked, request)
    connection.sendall(words.REQUEST.pack(len(request), asked, proof) + request)
    status, length, proof = words.ANSWER.unpack(_receive(connection, words.ANSWER.size))
    if length > (handle.nbytes if status == words.FOUND else REQUEST_LIMIT):
        raise HandleLost(handle.name, f"{address} answered with {length} bytes")
    data = _receive(connection, length)
    if secret is not None and not words.is_proof(proof, secret.answer(served, asked, status, data)):
        raise HandleLost(handle.name, f"{address} cannot prove that it has our secret")
    return status, data


@asynccontextmanager
async def serving(
    reader: ArenaReader,
    host: str = "127.0.0.1",
    port: int = 0,
    advertise: str | None = None,
    secret: Secret | None = None,
) -> AsyncIterator[str]:
    """Serve what `reader` can read while the context is open; port 0 is any free one.

    Yields the address for `Transport`, of the host that `advertise` names (`host` otherwise).
    Raises `Misconfigured` if `host` is not loopback and there is no secret."""
    secret = secret or secret_in_force()
    protection = {"DARKROOM_TENSOR_SECRET (openssl rand -hex 32)": secret is not None}
    refuse_unprotected("the tensor server", host, protection)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        listening.setblocking(False)
        bound = listening.getsockname()[1]
        async with asyncio.TaskGroup() as tasks:
            accepting = tasks.create_task(_accept(reader, listening, secret))
            try:
                yield f"{advertise or host}:{bound}"
            finally:
                accepting.cancel()


async def _accept(reader: ArenaReader, listening: socket.socket, secret: Secret | None) -> None:
    slots = asyncio.Semaphore(CONNECTIONS)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        while True:
            await slots.acquire()
            connection, _ = await loop.sock_accept(listening)
            task = tasks.create_task(_serve(reader, connection, secret))
            task.add_done_callback(lambda _: slots.release())


async def _serve(reader: ArenaReader, connection: socket.socket, secret: Secret | None) -> None:
    with connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await _answer(reader, connection, secret)
        except (OSError, EOFError, TimeoutError, msgspec.MsgspecError) as error:
            # Whoever asked notices by itself: its connection ends.
            log.warning("a pull failed: %s: %s", type(error).__name__, error)


async def _answer(reader: ArenaReader, connection: socket.socket, secret: Secret | None) -> None:
    loop, served = asyncio.get_running_loop(), secrets.token_bytes(words.NONCE)
    greeting = words.GREETING.pack(words.MAGIC, secret is not None, served)
    await loop.sock_sendall(connection, greeting)
    async with asyncio.timeout(ASK_SECONDS):
        request, asked = await _receive_request(connection, served, secret)
    handle = msgspec.msgpack.decode(request, type=TensorHandle)
    try:
        status, data = words.FOUND, await asyncio.to_thread(reader.read, handle)
    except HandleLost as lost:
        status, data = words.LOST, bytearray(str(lost.fields["reason"]).encode()[:REQUEST_LIMIT])
    proof = words.NO_PROOF
    if secret is not None:
        proof = await asyncio.to_thread(secret.answer, served, asked, status, data)
    await loop.sock_sendall(connection, words.ANSWER.pack(status, len(data), proof))
    await loop.sock_sendall(connection, data)


async def _receive_request(
    connection: socket.socket, served: bytes, secret: Secret | None
) -> tuple[bytearray, bytes]:
    """The encoded handle and the asker's nonce. Nothing of a request is looked at, but for its
    length, before it has proved whose it is."""
    head = await _receive_async(connection, words.REQUEST.size)
    length, asked, proof = words.REQUEST.unpack(head)
    if length > REQUEST_LIMIT:
        raise EOFError(f"a request of {length} bytes is over the limit of {REQUEST_LIMIT}")
    request = await _receive_async(connection, length)
    if secret is not None and not words.is_proof(proof, secret.request(served, asked, request)):
        raise EOFError("whoever asked does not have our secret")
    return request, asked


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
