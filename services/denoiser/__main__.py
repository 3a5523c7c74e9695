"""`python -m services.denoiser`"""

import dataclasses
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack

from services.denoiser.model import load
from services.denoiser.outbox import Outbox
from services.denoiser.service import Denoiser
from shared.catalogue import Catalogue
from shared.process import Process, arena, run_process
from shared.torch_setup import prepare_torch
from shared.worker import Worker

log = logging.getLogger(__name__)


async def main(running: Process) -> None:
    settings = running.settings
    prepare_torch(settings.threads)
    cards = Catalogue.load(settings.sources).cards

    def give_up(error: BaseException) -> None:
        log.error("the compute thread died; the process leaves, to be replaced: %r", error)
        running.stop.set()

    models = {
        name: load(name, card.source, settings, running.metrics, give_up)
        for name, card in cards.items()
    }
    async with arena(running) as transport, AsyncExitStack() as engines:
        for model in models.values():
            await engines.enter_async_context(model.engine)
        outbox = Outbox(running.bus)
        handler = Denoiser(
            models,
            transport,
            outbox,
            capacity=settings.max_rows,
            checkpoint_every=settings.checkpoint_every,
        )
        worker = Worker(running.bus, handler, settings, running.metrics, running.name)

        def statistics() -> Mapping[str, object]:
            engines = {n: dataclasses.asdict(m.engine.statistics()) for n, m in models.items()}
            return {**dataclasses.asdict(worker.statistics()), "engines": engines}

        await running.serve(
            worker.run,
            statistics=statistics,
            metadata={"models": " ".join(handler.models)},
            background=[outbox.run],
        )


if __name__ == "__main__":
    run_process("denoiser", main)
