import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest

from services.fleet.access.keys import AUTHORIZATION, SERVER, fleet_access, make_keys, server_access
from services.fleet.health import trouble
from services.fleet.supervisor.bus_server import BusServer, bus_server
from shared.bus.base import ServiceInfo
from shared.bus.nats import connect
from shared.bus.topology import TOPOLOGY
from shared.errors import BusUnavailable, Misconfigured
from shared.security.keys import SEED_FILE, Credentials
from shared.services import Served
from shared.tensors.owners import start_time
from tests.conftest import eventually, run

SERVED = Served(("m",), ())


def test_a_killed_server_comes_back_at_the_same_address_with_its_streams(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bus_server(tmp_path) as server:
            url, pid = server.url, server.pid
            bus = await connect(url, "test")
            await bus.ensure(TOPOLOGY)
            await bus.store("dr.v1.submit.job", b"kept")

            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: _replaced(server, pid))

            assert server.url == url
            assert server.restarts == 1
            assert await bus.stored("dr.v1.submit.job") == b"kept"
            await bus.close()

    run(scenario())


async def _replaced(server: BusServer, pid: int) -> bool:
    return server.pid != pid


def test_new_keys_and_certificates_count_without_a_restart(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    make_keys(keys, SERVED, ["localhost"])
    files = [*(keys / "nats" / name for name in SERVER), *(keys / "gateway").glob("tls.*")]

    async def scenario() -> None:
        async with bus_server(
            tmp_path / "data", access=partial(fleet_access, keys, SERVED)
        ) as server:
            pid, earlier = server.pid, Credentials.of_directory(keys / "admin")
            bus = await connect(server.url, "earlier", credentials=earlier)
            for file in (*files, keys / "admin" / SEED_FILE):
                file.unlink()
            make_keys(keys, Served(("another",), ()), ["localhost"])
            later = Credentials.of_directory(keys / "admin")
            assert later.public != earlier.public
            await eventually(lambda: _lets_in(server, later))
            assert (server.pid, server.restarts) == (pid, 0)
            # What is served the fleet knows better than whoever made the keys.
            told = (keys / "nats" / AUTHORIZATION).read_text()
            assert told == fleet_access(keys, SERVED).authorization
            await bus.close()

    run(scenario())


async def _lets_in(server: BusServer, credentials: Credentials) -> bool:
    try:
        bus = await connect(server.url, "later", budget=1.0, credentials=credentials)
    except (Misconfigured, BusUnavailable):
        return False
    await bus.close()
    return True


def test_files_of_no_use_change_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    make_keys(keys, SERVED, ["localhost"])
    server = BusServer(tmp_path, None, "127.0.0.1", partial(server_access, keys))
    [files] = server.files
    (keys / "nats" / SERVER[0]).write_text("no certificate")
    files.refresh()
    assert "are no certificate and its key" in files.trouble
    (keys / "nats" / SERVER[0]).unlink()
    files.refresh()
    assert "TLS is turned on and off by a restart" in files.trouble
    with pytest.raises(Misconfigured, match=r"holds no authorization\.conf"):
        BusServer(tmp_path, None, "127.0.0.1", partial(server_access, tmp_path / "none"))


def test_leaving_stops_the_server(tmp_path: Path) -> None:
    async def scenario() -> int:
        async with bus_server(tmp_path) as server:
            return server.pid

    assert start_time(run(scenario())) is None


def test_a_directory_that_is_in_use_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bus_server(tmp_path), bus_server(tmp_path):
            pass

    with pytest.raises(Misconfigured, match="another"):
        run(scenario())


def test_a_health_check_says_why_a_process_of_this_host_takes_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {"service": "vae", "pid": "1", "host": socket.gethostname()}
    info = ServiceInfo(name="darkroom-vae", version="0.1.0", description="", metadata=metadata)
    told: dict[str, object] = {"refusal": {"reason": "no memory", "lasting": True}}

    async def scenario() -> None:
        async with bus_server(tmp_path) as server:
            monkeypatch.setenv("DARKROOM_NATS_URL", server.url)
            bus = await connect(server.url, "test")
            async with bus.service(info, lambda: told):
                assert await trouble("vae") == "no memory"
                del told["refusal"]
                assert await trouble("vae") is None
            await bus.close()

    run(scenario())


def test_a_health_check_tells_the_bus_from_a_service_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> tuple[str | None, str | None]:
        async with bus_server(tmp_path) as server:
            monkeypatch.setenv("DARKROOM_NATS_URL", server.url)
            return await trouble("nats"), await trouble("vae")

    assert run(scenario()) == (None, "no process of it answers")
