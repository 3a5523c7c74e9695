"""What a container's health check finds out, with and without keys."""

from pathlib import Path

from services.fleet.access.keys import make_keys, server_access
from services.fleet.access.permissions import Served
from services.fleet.health import greets
from shared.bus.embedded import nats_server
from tests.conftest import run


def test_a_bus_greets_whoever_asks_even_under_keys(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nats_server(tmp_path / "open") as server:
            assert await greets(server.url)
        assert not await greets(server.url)
        make_keys(tmp_path / "keys", Served(("pocket",)), ("localhost",))
        access = server_access(tmp_path / "keys")
        async with nats_server(tmp_path / "closed", access=access) as server:
            assert await greets(server.url)

    run(scenario())
