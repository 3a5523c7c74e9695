"""`python -m services.prompt_encoder`"""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.prompt_encoder.checked_loading import load_checked
from services.prompt_encoder.service import PromptEncoder
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.contracts.family import Family
from shared.models.contracts.text_encoder import TextEncoder
from shared.models.families.registry import family_of
from shared.models.loras.libraries import AdapterLibraries
from shared.process.component_memory import ComponentHost
from shared.process.process import Process, arena, run_process
from shared.process.served import ServedCatalogue
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
        served = await ServedCatalogue(
            running.bus, settings.sources, partial(Catalogue.of, settings)
        ).begin()
        dtype = getattr(torch, settings.dtype)
        libraries = AdapterLibraries(
            served.catalogue.lora_directory, settings, running.metrics, running.loader
        )

        def family(name: str) -> Family:
            return family_of(served.catalogue.sources[name])

        def wide(name: str) -> TextEncoder:
            return family(name).text_encoder(settings.device, torch.float32)

        handler = PromptEncoder({}, {}, None if dtype is torch.float32 else wide)

        @asynccontextmanager
        async def serving(name: str, encoder: TextEncoder) -> AsyncIterator[None]:
            own = family(name)
            library = libraries.add(name, own, encoder.check, own.text_encoders)
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
                sources=lambda: served.catalogue.sources,
                folders=lambda name: family(name).text_encoders,
                load=lambda name: load_checked(family(name), settings.device, dtype),
                serving=serving,
            ),
            served=served,
            statistics=libraries.statistics,
        )


if __name__ == "__main__":
    run_process("prompt_encoder", main)
