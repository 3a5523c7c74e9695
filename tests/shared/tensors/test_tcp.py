"""A pull between hosts, when the other side is gone, slow, or not what it seems."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.errors import HandleLost, Misconfigured
from shared.messages.handle import TensorHandle
from shared.tensors import pull_protocol as words
from shared.tensors import tcp
from shared.tensors.arena import Arena
from shared.tensors.layout import UNIT
from shared.tensors.reader import ArenaReader
from tests.conftest import run

BIG = 40 * UNIT
GREETING = words.GREETING.pack(words.MAGIC, False, bytes(32))


def said(status: int, length: int, data: bytes = b"") -> bytes:
    """An answer without a proof."""
    return words.ANSWER.pack(status, length, words.NO_PROOF) + data


def write(arena: Arena, byte: int) -> TensorHandle:
    return arena.write(
        bytes([byte]) * BIG, "uint8", (BIG,), job_id="job", attempt=1, lifetime_seconds=60
    )


@contextmanager
def answering(answer: bytes, greeting: bytes = GREETING) -> Iterator[str]:
    """A server that says `answer` to anyone, once, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(greeting)
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
                too_long = words.REQUEST.pack(2**32 - 1, bytes(32), words.NO_PROOF)
                no_handle = words.REQUEST.pack(4, bytes(32), words.NO_PROOF) + b"nope"
                for nonsense in (b"", b"\1", too_long, no_handle):
                    received, sending = await asyncio.open_connection(host, int(port))
                    sending.write(nonsense)
                    sending.write_eof()
                    assert len(await received.read()) == words.GREETING.size
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
                await received.readexactly(words.GREETING.size)
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
        (said(0, BIG, bytes(10)), "ended early"),
        (said(0, 2**63), "answered with 9223372036854775808 bytes"),
        (said(1, 2**63), "answered with 9223372036854775808 bytes"),
        (said(0, BIG, b"\2" * BIG), "other bytes"),
        (said(0, 3, b"\1" * 3), "other bytes"),
        (said(1, 3, b"\xff!!"), "says: .!!"),
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


def test_hosts_that_share_a_secret_pull_from_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        with (
            Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena,
            ArenaReader(tmp_path / "arenas") as reader,
        ):
            handle = write(arena, 1)
            async with tcp.serving(reader, secret=words.Secret(b"ours")) as address:
                pulled = asyncio.to_thread(tcp.pull, address, handle, words.Secret(b"ours"))
                assert await pulled == b"\1" * BIG

    run(scenario())


@pytest.mark.parametrize(
    ("served", "asked", "reason"),
    [
        (b"ours", b"theirs", "did not answer"),
        (b"ours", None, "we have no DARKROOM_TENSOR_SECRET"),
        (None, b"ours", "the other side has no DARKROOM_TENSOR_SECRET"),
    ],
)
def test_whoever_lacks_the_secret_gets_nothing(
    tmp_path: Path, served: bytes | None, asked: bytes | None, reason: str
) -> None:
    async def scenario() -> None:
        with (
            Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena,
            ArenaReader(tmp_path / "arenas") as reader,
        ):
            handle = write(arena, 1)
            ours, theirs = (one and words.Secret(one) for one in (served, asked))
            async with tcp.serving(reader, secret=ours or None) as address:
                with pytest.raises(HandleLost, match=reason):
                    await asyncio.to_thread(tcp.pull, address, handle, theirs or None)

    run(scenario())


def test_a_recorded_answer_proves_nothing(tmp_path: Path) -> None:
    secret = words.Secret(b"ours")
    data = b"\1" * BIG
    recorded = secret.answer(bytes(32), b"an earlier nonce", 0, data)
    answer = words.ANSWER.pack(0, BIG, recorded) + data
    with Arena.create(tmp_path / "arenas", 4 * BIG, "vae") as arena:
        handle = write(arena, 1)
        greeting = words.GREETING.pack(words.MAGIC, True, bytes(32))
        with (
            answering(answer, greeting) as address,
            pytest.raises(HandleLost, match="cannot prove that it has our secret"),
        ):
            tcp.pull(address, handle, secret)


def test_only_loopback_is_served_without_a_secret(tmp_path: Path) -> None:
    async def scenario() -> None:
        with ArenaReader(tmp_path / "arenas") as reader:
            with pytest.raises(Misconfigured, match="set DARKROOM_TENSOR_SECRET"):
                async with tcp.serving(reader, "0.0.0.0"):
                    pass
            async with tcp.serving(reader, "0.0.0.0", secret=words.Secret(b"ours")):
                pass

    run(scenario())


def test_a_secret_is_read_from_a_file_that_is_ours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x" * 40)
    monkeypatch.setenv("DARKROOM_TENSOR_SECRET", str(path))
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match=r"mode 640; it has to be user .* with mode 600"):
        words.secret_in_force()
    path.chmod(0o600)
    assert words.secret_in_force() is not None
    path.write_bytes(b"short")
    with pytest.raises(Misconfigured, match="holds 5 bytes; at least 32"):
        words.secret_in_force()
