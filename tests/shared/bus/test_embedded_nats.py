"""The embedded nats-server: starting, stopping, refusing, and dying with its parent."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from shared.bus.embedded import (
    MAX_PAYLOAD,
    ServerAccess,
    check_version,
    nats_server,
    render_config,
)
from shared.bus.nats import connect
from shared.errors import Misconfigured
from tests.conftest import eventually, run


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def fake_binary(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_server_answers_inside_the_context_and_is_gone_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path / "new" / "store") as server:
            assert alive(server.pid)
            bus = await connect(server.url, "test")
            assert bus.max_payload >= MAX_PAYLOAD
            await bus.close()
        assert not alive(server.pid)

    run(scenario())


def test_it_listens_on_the_port_it_was_given(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path) as first:
            port = first.port
        async with nats_server(tmp_path, port=port) as second:
            assert second.port == port
            assert second.url == f"nats://127.0.0.1:{port}"

    run(scenario())


def test_two_servers_run_side_by_side_in_their_own_directories(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path / "a") as one, nats_server(tmp_path / "b") as two:
            assert one.port != two.port

    run(scenario())


def test_a_directory_serves_one_server_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path):
            with pytest.raises(Misconfigured, match="another nats-server uses"):
                async with nats_server(tmp_path):
                    pass

    run(scenario())


def test_a_port_in_use_is_reported_with_the_servers_own_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path / "a") as one:
            with pytest.raises(Misconfigured, match="address already in use"):
                async with nats_server(tmp_path / "b", port=one.port):
                    pass

    run(scenario())


def test_an_acknowledged_message_is_synced_to_disk(tmp_path: Path) -> None:
    assert "sync_interval: always" in render_config(tmp_path, "127.0.0.1", -1, MAX_PAYLOAD)


def test_a_client_may_take_a_while_to_begin_with_tls(tmp_path: Path) -> None:
    """`auto`, 50 ms, would greet in the clear whoever is slower, and such a bus is refused."""
    access = ServerAccess("", tmp_path / "server.crt", tmp_path / "server.key")
    told = render_config(tmp_path, "127.0.0.1", -1, MAX_PAYLOAD, access)
    assert 'handshake_first: "500ms"' in told


def test_it_removes_nothing_but_what_it_made_for_one_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path):
            pass

    (tmp_path / "mine.txt").write_text("kept")
    run(scenario())
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert (tmp_path / "jetstream").is_dir()
    assert list(tmp_path.glob("*.ports")) == []


def test_a_killed_server_does_not_disturb_leaving_the_context(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path) as server:
            os.kill(server.pid, signal.SIGKILL)
        assert not alive(server.pid)

    run(scenario())


def test_cancellation_stops_the_server(tmp_path: Path) -> None:
    async def scenario() -> None:
        pids: list[int] = []

        async def hold() -> None:
            async with nats_server(tmp_path) as server:
                pids.append(server.pid)
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())

        async def started() -> bool:
            return bool(pids)

        await eventually(started)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert not alive(pids[0])

    run(scenario())


def test_the_server_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, json
from pathlib import Path
from shared.bus.embedded import nats_server

async def main():
    async with nats_server(Path({str(tmp_path)!r})) as server:
        print(json.dumps(server.pid), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

    async def scenario() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        pid = json.loads(await parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        await parent.communicate()

        async def gone() -> bool:
            return not alive(pid)

        await eventually(gone)
        async with nats_server(tmp_path):  # and the directory is free again
            pass

    run(scenario())


def test_an_old_server_is_refused_by_name_and_version(tmp_path: Path) -> None:
    old = fake_binary(tmp_path / "nats-server", "echo nats-server: v2.9.10")
    with pytest.raises(Misconfigured, match=r"nats-server v2\.9\.10; needed is 2\.14 or newer"):
        run(check_version(old))


def test_what_is_no_nats_server_is_refused(tmp_path: Path) -> None:
    other = fake_binary(tmp_path / "nats-server", "echo hello")
    with pytest.raises(Misconfigured, match="gives no version"):
        run(check_version(other))
