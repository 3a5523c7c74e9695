"""The bus of a fleet, for the commands that look into it and mend it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from shared.bus.base import Bus
from shared.bus.nats import connect
from shared.client import fleet_state
from shared.errors import Misconfigured
from shared.security.keys import Credentials

CONNECT_SECONDS: Final = 3.0


@asynccontextmanager
async def bus_at(url: str | None, name: str, keys: Path | None = None) -> AsyncIterator[Bus]:
    """The bus at `url`, or of the fleet that runs here. `name`: of this connection. Raises
    `Misconfigured` if no fleet runs here, `BusUnavailable` if its bus does not answer."""
    running = fleet_state.running_at(url)
    address = url or (running.nats_url if running else None)
    if address is None:
        raise Misconfigured("no fleet is running here; start one with: darkroom up")
    credentials = running.credentials("admin") if running else None
    if keys is not None:
        credentials = Credentials.of_directory(keys / "admin")
    bus = await connect(address, name, budget=CONNECT_SECONDS, credentials=credentials)
    try:
        yield bus
    finally:
        await bus.close()
