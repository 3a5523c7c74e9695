"""What is checked of a bus that is not our own before anything is entrusted to it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shared import subjects
from shared.bus.embedded import find_binary, nats_server
from shared.bus.nats import api, connect
from shared.bus.nats.durability import check_sync, finding
from shared.bus.topology import TOPOLOGY
from shared.errors import Misconfigured
from shared.jobs.travel import MAX_IMAGE_BYTES
from shared.jobs.validate import MAX_PROMPT_CHARACTERS
from shared.process.payload import ENVELOPE_BYTES, NEEDED, refuse_small_payload
from tests.conftest import eventually, run


@asynccontextmanager
async def external(directory: Path, sync: str, limits: str = "") -> AsyncIterator[tuple[str, str]]:
    """Somebody else's server with a monitoring port: both addresses."""
    config = directory / "server.conf"
    config.write_text(
        f'host: 127.0.0.1\nport: -1\nhttp: "127.0.0.1:-1"\nports_file_dir: "{directory}"\n'
        f'log_file: "{directory}/log"\n{limits}\n'
        f'jetstream {{ store_dir: "{directory}"\n {sync}\n}}\n'
    )
    process = await asyncio.create_subprocess_exec(find_binary(), "--config", config)
    ports = directory / f"nats-server_{process.pid}.ports"

    async def written() -> bool:
        return ports.exists() and ports.read_text().endswith("}")

    try:
        await eventually(written)
        found = json.loads(ports.read_text())
        yield found["nats"][0], found["monitoring"][0]
    finally:
        process.kill()
        await process.wait()


def test_a_bus_that_acknowledges_what_it_has_not_synced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with external(tmp_path, "") as (url, monitor):
            monkeypatch.setenv("DARKROOM_NATS_MONITOR", monitor)
            bus = await connect(url, "test")
            with pytest.raises(Misconfigured, match="set `sync_interval: always`"):
                await bus.ensure(TOPOLOGY)
            await bus.close()

    run(scenario())


def test_a_bus_that_syncs_first_is_accepted_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with external(tmp_path, "sync_interval: always") as (url, monitor):
            monkeypatch.setenv("DARKROOM_NATS_MONITOR", monitor)
            bus = await connect(url, "test")
            await bus.ensure(TOPOLOGY)
            await bus.close()

    run(scenario())
    assert "sync_" not in caplog.text


def test_what_cannot_be_known_is_said_by_name_unless_the_operator_vouches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(check_sync("", "always", 1))
    assert caplog.text == ""
    run(check_sync("", "", 1))
    assert "sync_unverified" in caplog.text
    assert "DARKROOM_NATS_MONITOR" in caplog.text


@pytest.mark.parametrize(
    ("varz", "expected"),
    [
        ({"jetstream": {"config": {"sync_always": True}}}, "always"),
        ({"jetstream": {"config": {"sync_interval": 120_000_000_000}}}, "sometimes"),
        ({"jetstream": {}}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_server_tells_its_sync_on_its_monitoring_port(
    varz: dict[str, Any], expected: str
) -> None:
    assert finding(varz) == expected


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "file:///etc/passwd", "nonsense"])
def test_a_monitor_that_does_not_answer_is_a_mistake_with_a_name(address: str) -> None:
    with pytest.raises(Misconfigured, match="DARKROOM_NATS_MONITOR"):
        run(check_sync(address, "", 1))


def test_several_copies_make_a_late_sync_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def varz(request: web.Request) -> web.Response:
        return web.json_response({"jetstream": {"config": {"sync_interval": 1}}})

    async def scenario() -> None:
        app = web.Application()
        app.router.add_get("/varz", varz)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        try:
            await check_sync(f"http://127.0.0.1:{port}", "", 3)
        finally:
            await runner.cleanup()

    run(scenario())
    assert "sync_not_always" in caplog.text


def test_an_old_server_is_refused_when_it_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path) as server:
            monkeypatch.setattr("shared.bus.nats.identity.OLDEST", (99, 0))
            with pytest.raises(Misconfigured, match=r"nats-server 2\.\d+; needed is 99\.0"):
                await connect(server.url, "test")

    run(scenario())


STARTS = """
from shared.process.process import run_process

async def main(running):
    print("started")

run_process("planner", main)
"""


@pytest.mark.parametrize("limits", ["", "max_payload: 8MB"])
def test_a_bus_that_has_no_room_for_pictures_is_refused_at_the_start(
    tmp_path: Path, limits: str
) -> None:
    async def scenario() -> tuple[str, str]:
        async with external(tmp_path, "sync_interval: always", limits) as (url, _):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                STARTS,
                cwd=Path(__file__).parents[2],
                env={**os.environ, "DARKROOM_NATS_URL": url, "DARKROOM_NATS_SYNC": "always"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            said, complained = await process.communicate()
            return said.decode(), complained.decode()

    said, complained = run(scenario())
    if limits:
        assert "started" in said, complained
    else:
        assert "started" not in said
        assert "takes messages of at most" in complained
        assert "set `max_payload: 8MB` in its configuration" in complained


def test_the_largest_request_is_no_larger_than_the_largest_result() -> None:
    prompts = 2 * 4 * MAX_PROMPT_CHARACTERS
    assert MAX_IMAGE_BYTES + prompts + ENVELOPE_BYTES <= NEEDED
    refuse_small_payload(NEEDED)
    with pytest.raises(Misconfigured, match="images need"):
        refuse_small_payload(NEEDED - 1)


def test_a_consumer_that_nobody_pulls_from_leaves_and_what_waits_is_there_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that was removed, say."""

    async def scenario() -> None:
        async with nats_server(tmp_path) as server:
            bus = await connect(server.url, "test")
            await bus.ensure(TOPOLOGY)
            name = subjects.work_consumer("decode", "m", "standard")
            queue = subjects.work_filter("decode", "m", "standard")

            async def pulled() -> list[str]:
                consumer = await bus.consumer(subjects.WORK, name, queue, 30.0)
                return [delivery.subject for delivery in await consumer.fetch(1, 5.0)]

            async def gone() -> bool:
                request = f"$JS.API.CONSUMER.INFO.{subjects.WORK}.{name}"
                return b"consumer not found" in (await bus.request(request, b"", 5.0)).data

            await bus.consumer(subjects.WORK, name, queue, 30.0)
            assert not await gone()
            monkeypatch.setattr(api, "FORGOTTEN_SECONDS", 0.2)  # as of consumers made before
            await bus.consumer(subjects.WORK, name, queue, 30.0)
            await eventually(gone)
            waits = queue.replace("*", "j")
            await bus.store(waits, b"")
            assert await pulled() == [waits]
            await bus.close()

    run(scenario())
