"""`python -m services.placement`"""

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.placement.service import PlacementService
from shared.process.process import Process, run_process


async def main(running: Process) -> None:
    service = PlacementService(running.bus, running.name)
    await running.serve(service.run, statistics=service.statistics, metadata={})


if __name__ == "__main__":
    run_process("placement", main)
