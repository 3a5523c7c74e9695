"""`python -m services.vae`"""

import dataclasses
from functools import partial

from services.vae.service import ImageDecoder, load
from shared.catalogue import Catalogue
from shared.memory_budget import component_bytes
from shared.process import Process, arena, run_process
from shared.torch_setup import prepare_torch
from shared.worker import Worker


async def main(running: Process) -> None:
    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads)
        cards = Catalogue.load(settings.sources).cards.values()
        weights = sum(component_bytes(card.source, "vae") for card in cards)
        running.budget.refuse_larger(f"the vae of {', '.join(c.name for c in cards)}", weights)
        decoders = load([(c.name, c.source) for c in cards], settings.device, settings.dtype)
        handler = ImageDecoder(decoders, running.bus, transport)
        worker = Worker(
            running.bus, handler, settings, running.metrics, running.name, running.budget.room
        )
        await running.serve(
            worker.run,
            statistics=lambda: dataclasses.asdict(worker.statistics()),
            metadata={"models": " ".join(handler.models)},
            background=[partial(handler.serve_previews, model) for model in handler.models],
        )
        handler.close()


if __name__ == "__main__":
    run_process("vae", main)
