"""`python -m services.prompt_encoder`"""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.prompt_encoder.checked_loading import load_checked
from services.prompt_encoder.service import PromptEncoder
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.contracts.family import Family
from shared.models.contracts.text_encoder import TextEncoder
from shared.models.families.registry import family_of
from shared.models.loras.libraries import AdapterLibraries
from shared.process.components import ComponentHost
from shared.process.process import Process, arena, run_process
from shared.process.serving import serve_nodes


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    importlib.import_module("shared.models.contracts.clip")
    importlib.import_module("transformers.models.clip.modeling_clip")


async def main(running: Process) -> None:
    import torch

    preload()

    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads, settings.device)
        catalogue = Catalogue.of(settings)
        cards = catalogue.cards
        dtype = getattr(torch, settings.dtype)
        libraries = AdapterLibraries(
            catalogue.lora_directory, settings, running.metrics, running.loader
        )

        def family(name: str) -> Family:
            return family_of(cards[name].source)

        def wide(name: str) -> TextEncoder:
            return family(name).text_encoder(settings.device, torch.float32)

        handler = PromptEncoder({}, {}, None if dtype is torch.float32 else wide)

        @asynccontextmanager
        async def serving(name: str, encoder: TextEncoder) -> AsyncIterator[None]:
            parts = family(name).text_encoders
            library = libraries.add(name, family(name), encoder.check, parts)
            handler.hold(name, encoder, library)
            try:
                yield
            finally:
                await handler.drop(name)
                libraries.remove(name)
                running.metrics.forget_model(name)

        await serve_nodes(
            running,
            transport,
            (handler,),
            ComponentHost(
                what="the text encoders",
                sources=lambda: {name: card.source for name, card in cards.items()},
                folders=lambda name: family(name).text_encoders,
                load=lambda name: load_checked(family(name), settings.device, dtype),
                serving=serving,
            ),
            statistics=libraries.statistics,
        )


if __name__ == "__main__":
    run_process("prompt_encoder", main)
