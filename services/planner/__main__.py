"""`python -m services.planner`"""

import dataclasses
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.planner.planner import Planner
from shared.bus.discovery import sizes_metadata
from shared.host.heap import give_back_large_pieces
from shared.models.catalogue import Catalogue
from shared.process.process import Process, run_process
from shared.process.served import ServedCatalogue


def metadata_of(catalogue: Catalogue) -> dict[str, str]:
    return {"models": " ".join(catalogue.cards), **sizes_metadata(catalogue.sizes())}


async def main(running: Process) -> None:
    settings = running.settings
    served = await ServedCatalogue(
        running.bus, settings.sources, partial(Catalogue.of, settings)
    ).begin()
    planner = Planner(running.bus, served.catalogue, settings, running.metrics, running.name)
    metadata = metadata_of(served.catalogue)

    async def changed() -> None:
        metadata.update(metadata_of(served.catalogue))
        planner.serve(served.catalogue)

    served.changed.append(changed)
    await running.serve(
        planner.run,
        statistics=lambda: dataclasses.asdict(planner.statistics()),
        refusal=planner.refusal,
        metadata=metadata,
        unusable=lambda: served.catalogue.unusable,
        background=[
            planner.watch_queues,
            planner.watch_deadlines,
            planner.watch_services,
            planner.watch_wanted,
            served.follow,
        ],
    )


if __name__ == "__main__":
    give_back_large_pieces()
    run_process("planner", main)
