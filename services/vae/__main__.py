"""`python -m services.vae`"""

from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.vae.image_encoder import ImageEncoder
from services.vae.service import ImageDecoder, load
from shared.host.lean_imports import lean_diffusers
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.contracts.autoencoder import FOLDER
from shared.process.process import Process, arena, run_process
from shared.process.serving import load_components, serve_nodes


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    lean_diffusers()


async def main(running: Process) -> None:
    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads, settings.device)
        preload()
        cards = Catalogue.load(settings.sources, settings_file=settings.model_settings).cards
        autoencoders, unusable = load_components(
            running,
            "the vae",
            {name: card.source for name, card in cards.items()},
            dict.fromkeys(cards, (FOLDER,)),
            lambda name: load(cards[name], settings.device, settings.dtype),
        )
        decoder = ImageDecoder(autoencoders, running.bus, transport)
        encoder = ImageEncoder(autoencoders, running.bus)
        await serve_nodes(
            running,
            transport,
            (decoder, encoder),
            unusable=unusable,
            background=[partial(decoder.serve_previews, model) for model in decoder.models],
        )
        decoder.close()
        encoder.close()


if __name__ == "__main__":
    run_process("vae", main)
