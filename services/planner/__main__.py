"""`python -m services.planner`"""

import dataclasses

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.planner.planner import Planner
from shared.bus.discovery import sizes_metadata
from shared.host.heap import give_back_large_pieces
from shared.models.catalogue import Catalogue
from shared.process.process import Process, run_process


async def main(running: Process) -> None:
    catalogue = Catalogue.of(running.settings)
    planner = Planner(running.bus, catalogue, running.settings, running.metrics, running.name)
    await running.serve(
        planner.run,
        statistics=lambda: dataclasses.asdict(planner.statistics()),
        refusal=planner.refusal,
        metadata={"models": " ".join(catalogue.cards), **sizes_metadata(catalogue.sizes())},
        unusable=lambda: catalogue.unusable,
        background=[planner.watch_queues, planner.watch_deadlines, planner.watch_services],
    )


if __name__ == "__main__":
    give_back_large_pieces()
    run_process("planner", main)
