"""`python -m services.fleet.health SERVICE`: exit 0 if a SERVICE of this host takes work.

What container health checks run. SERVICE `nats` asks of the bus only that it answers.
"""

import asyncio
import socket
import sys
from typing import Final

from shared.bus.nats import connect
from shared.config import Settings
from shared.discovery import services
from shared.errors import DarkroomError

ANSWER_SECONDS: Final = 2.0


async def healthy(service: str) -> bool:
    bus = await connect(Settings.from_env().nats_url, f"health-{service}", budget=ANSWER_SECONDS)
    try:
        found = await services(bus, ANSWER_SECONDS)
    finally:
        await bus.close()
    here = socket.gethostname()
    return service == "nats" or any(one.service == service and one.host == here for one in found)


def main() -> None:
    service = sys.argv[1]
    try:
        answers = asyncio.run(healthy(service))
    except DarkroomError as error:
        sys.exit(f"{service}: {error}")
    if not answers:
        sys.exit(f"{service}: no process of it answers")


if __name__ == "__main__":
    main()
