"""`python -m services.fleet.health SERVICE`: exit 0 if a SERVICE of this host takes work.

Otherwise it says why not. What container health checks run, as the service that they check. SERVICE
`nats` asks of the bus only that it greets.
"""

import asyncio
import json
import socket
import sys
from typing import Final
from urllib.parse import urlsplit

from shared.bus.discovery import services
from shared.bus.nats import connect
from shared.bus.readiness import common
from shared.config import Settings
from shared.errors import DarkroomError
from shared.services import SERVICES

ANSWER_SECONDS: Final = 2.0


async def trouble(service: str) -> str | None:
    """Why `service` does not work here; None: it does."""
    if service == "nats":
        return None if await greets(Settings.from_env().nats_url) else "it does not greet"
    bus = await connect(Settings.from_env().nats_url, f"health-{service}", budget=ANSWER_SECONDS)
    try:
        found = await services(bus, ANSWER_SECONDS)
    finally:
        await bus.close()
    here = socket.gethostname()
    answers = [one.refusal for one in found if one.service == service and one.host == here]
    if not answers:
        return "no process of it answers"
    refusal = common(answers)
    return None if refusal is None else refusal.reason


async def greets(url: str) -> bool:
    """Whether a server with JetStream listens at `url`. No key is needed to be greeted."""
    place = urlsplit(url)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
        return bool(json.loads(greeting.removeprefix(b"INFO ")).get("jetstream"))
    except (OSError, TimeoutError, ValueError):
        return False


def main() -> None:
    service = " ".join(sys.argv[1:])
    if service not in (*SERVICES, "nats"):
        sys.exit(f"SERVICE is {service!r}; allowed: {', '.join(SERVICES)} or nats")
    try:
        why = asyncio.run(trouble(service))
    except DarkroomError as error:
        sys.exit(f"{service}: {error}")
    if why is not None:
        sys.exit(f"{service}: {why}")


if __name__ == "__main__":
    main()
