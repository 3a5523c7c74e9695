"""A pull between hosts, when the other side is gone, slow, or not what it seems."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.errors import HandleLost
from shared.tensors import tcp
from shared.tensors.arena import Arena
from shared.tensors.handle import TensorHandle
from shared.tensors.layout import UNIT
from shared.tensors.reader import ArenaReader
from tests.conftest import run

BIG = 40 * UNIT


def write(arena: Arena, byte: int) -> TensorHandle:
    return arena.write(
        bytes([byte]) * BIG, "uint8", (BIG,), job_id="job", attempt=1, lifetime_seconds=60
    )


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says `answer` to anyone, once, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(tcp.REQUEST_LIMIT)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def test_more_pulls_at_once_than_connections_are_all_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        with (
            Arena.create(tmp_path / "arenas", 64 * BIG, "vae") as arena,
            ArenaReader(tmp_path / "arenas") as reader,
            ThreadPoolExecutor(2 * tcp.CONNECTIONS) as pool,
        ):
            handles = [write(arena, i) for i in range(2 * tcp.CONNECTIONS)]
            async with tcp.serving(reader) as address:
                loop = asyncio.get_running_loop()
                pulls = [loop.run_in_executor(pool, tcp.pull, address, h) for h in handles]
                for i, data in enumerate(await asyncio.gather(*pulls)):
                    assert data == bytes([i]) * BIG

    run(scenario())


def test_a_lost_handle_says_why_across_hosts(tmp_path: Path) -> None:
    async def scenario() -> None:
        with (
            Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena,
            ArenaReader(tmp_path / "arenas") as reader,
        ):
            handle = write(arena, 1)
            arena.free(handle)
            async with tcp.serving(reader) as address:
                with pytest.raises(HandleLost, match="says: its slot was freed"):
                    await asyncio.to_thread(tcp.pull, address, handle)

    run(scenario())


def test_nonsense_ends_its_own_connection_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        with (
            Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena,
            ArenaReader(tmp_path / "arenas") as reader,
        ):
            handle = write(arena, 1)
            async with tcp.serving(reader) as address:
                host, port = address.split(":")
                for nonsense in (b"", b"\1", struct.pack("<I", 2**32 - 1), b"\4\0\0\0nope"):
                    received, sending = await asyncio.open_connection(host, int(port))
                    sending.write(nonsense)
                    sending.write_eof()
                    assert await received.read() == b""
                    sending.close()
                    await sending.wait_closed()
                assert await asyncio.to_thread(tcp.pull, address, handle) == b"\1" * BIG

    run(scenario())


def test_a_server_stops_while_a_client_says_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        with ArenaReader(tmp_path / "arenas") as reader:
            async with tcp.serving(reader) as address:
                host, port = address.split(":")
                received, sending = await asyncio.open_connection(host, int(port))
            assert await received.read() == b""
            sending.close()
            await sending.wait_closed()
            with pytest.raises(OSError, match="onnect"):
                await asyncio.open_connection(host, int(port))

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "did not answer"),
        (struct.pack("<BQ", 0, BIG) + bytes(10), "ended early"),
        (struct.pack("<BQ", 0, 2**63), "answered with 9223372036854775808 bytes"),
        (struct.pack("<BQ", 1, 2**63), "answered with 9223372036854775808 bytes"),
        (struct.pack("<BQ", 0, BIG) + b"\2" * BIG, "other bytes"),
        (struct.pack("<BQ", 0, 3) + b"\1" * 3, "other bytes"),
        (struct.pack("<BQ", 1, 3) + b"\xff!!", "says: .!!"),
    ],
)
def test_wrong_answers_are_lost_handles(tmp_path: Path, answer: bytes, reason: str) -> None:
    with Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena:
        handle = write(arena, 1)
        with answering(answer) as address, pytest.raises(HandleLost, match=reason):
            tcp.pull(address, handle)


def test_nobody_there_is_a_lost_handle(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    with Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena:
        handle = write(arena, 1)
        with pytest.raises(HandleLost, match="did not answer"):
            tcp.pull(address, handle)
