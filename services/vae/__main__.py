"""`python -m services.vae`"""

import dataclasses
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.vae.image_encoder import ImageEncoder
from services.vae.service import ImageDecoder, load
from shared.bus.readiness import common
from shared.host.lean_imports import lean_diffusers
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.contracts.autoencoder import FOLDER
from shared.models.files.loading import load_each
from shared.process.process import Process, arena, run_process
from shared.worker.exclusive import ExclusiveLock
from shared.worker.group import run_together, total
from shared.worker.memory_budget import component_bytes
from shared.worker.worker import Worker


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    lean_diffusers()


async def main(running: Process) -> None:
    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads, settings.device)
        preload()
        models, settings_file = settings.sources, settings.model_settings
        catalogue = Catalogue.load(models, settings_file=settings_file)
        cards = catalogue.cards.values()
        weights = sum(component_bytes(card.source, FOLDER) for card in cards)
        what = f"the vae of {', '.join(card.name for card in cards)}"
        running.budget.refuse_larger(what, weights)
        autoencoders, unusable = load_each(
            {card.name: card.source for card in cards},
            "model",
            "the vae",
            lambda name: load(catalogue.cards[name], settings.device, settings.dtype),
        )
        decoder = ImageDecoder(autoencoders, running.bus, transport)
        encoder = ImageEncoder(autoencoders, running.bus)
        exclusive_lock = ExclusiveLock()
        workers = [
            Worker(running, handler, transport, exclusive_lock=exclusive_lock)
            for handler in (decoder, encoder)
        ]
        await running.serve(
            partial(run_together, workers),
            statistics=lambda: dataclasses.asdict(total(workers)),
            refusal=lambda: common([worker.refusal() for worker in workers]),
            metadata={"models": " ".join(decoder.models)},
            unusable=unusable,
            background=[partial(decoder.serve_previews, model) for model in decoder.models],
        )
        decoder.close()
        encoder.close()


if __name__ == "__main__":
    run_process("vae", main)
