"""`python -m tests.chaos.fleet.leader DIRECTORY ARENAS PORT PLAN`: a fleet by PLAN (JSON) with its
bus in a process of its own, which says so when it is ready, and which can be killed with all it
started.
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from tests.chaos.fleet.brokers import single_broker
from tests.chaos.fleet.fleets import FleetPlan, on_broker

READY: Final = "ready"


async def lead(here: Path, arenas: Path, port: int, plan: FleetPlan) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        single_broker(here / "nats", port) as broker,
        on_broker(plan, broker, here, arenas),
    ):
        print(READY, flush=True)
        await stop.wait()


def main(here: str, arenas: str, port: str, plan: str) -> None:
    asyncio.run(
        lead(Path(here), Path(arenas), int(port), msgspec.json.decode(plan, type=FleetPlan))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
