"""`python -m services.vae`"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.vae.autoencoder import Autoencoder
from services.vae.image_encoder import ImageEncoder
from services.vae.service import ImageDecoder, load
from shared.host.lean_imports import lean_diffusers
from shared.host.tasks import alongside
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.contracts.autoencoder import FOLDER
from shared.process.component_memory import ComponentHost
from shared.process.process import Process, arena, run_process
from shared.process.served import ServedCatalogue
from shared.process.serving import serve_nodes


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    lean_diffusers()


async def main(running: Process) -> None:
    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads, settings.device)
        preload()
        served = await ServedCatalogue(
            running.bus,
            settings.sources,
            partial(Catalogue.load, settings_file=settings.model_settings),
        ).begin()
        decoder = ImageDecoder({}, running.bus, transport)
        encoder = ImageEncoder({}, running.bus)

        @asynccontextmanager
        async def serving(name: str, autoencoder: Autoencoder) -> AsyncIterator[None]:
            decoder.hold(name, autoencoder)
            encoder.hold(name, autoencoder)
            try:
                async with alongside(decoder.serve_previews(name)):
                    yield
            finally:
                await decoder.drop(name)
                await encoder.drop(name)

        await serve_nodes(
            running,
            transport,
            (decoder, encoder),
            ComponentHost(
                what="the vae",
                sources=lambda: served.catalogue.sources,
                folders=lambda name: (FOLDER,),
                load=lambda name: load(
                    served.catalogue.cards[name], settings.device, settings.dtype
                ),
                serving=serving,
            ),
            served=served,
        )


if __name__ == "__main__":
    run_process("vae", main)
