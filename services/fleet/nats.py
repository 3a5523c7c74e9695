"""`python -m services.fleet.nats DIRECTORY [HOST [PORT]]`: the bus alone, for a container.

The same server with the same settings as a fleet's, so that these are written down once. Who may
use it is said by `nats/` in the directory DARKROOM_KEYS, which `darkroom keys` made.
"""

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

from services.fleet.access.keys import server_access
from services.fleet.supervisor.bus_server import bus_server
from shared.errors import DarkroomError


async def serve(directory: Path, host: str, port: int) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    keys = os.environ.get("DARKROOM_KEYS", "")
    access = partial(server_access, Path(keys)) if keys else None
    async with bus_server(directory, port, host, access):
        await stop.wait()


def main(directory: str, host: str = "127.0.0.1", port: str = "4222") -> None:
    try:
        asyncio.run(serve(Path(directory), host, int(port)))
    except DarkroomError as error:
        sys.exit(f"nats: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
