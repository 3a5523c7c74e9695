"""What a container's health check finds out, with and without keys."""

from pathlib import Path

import pytest

from services.fleet.access.keys import make_keys, server_access
from services.fleet.health import greets, main
from shared.bus.embedded import nats_server
from shared.services import Served
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


@pytest.mark.parametrize("arguments", [[], ["denoise"], ["vae", "planner"]])
def test_only_a_service_is_asked_after(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["health", *arguments])
    with pytest.raises(SystemExit, match=r"allowed: gateway, planner, .* or nats"):
        main()
