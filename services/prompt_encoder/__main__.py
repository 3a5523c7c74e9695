"""`python -m services.prompt_encoder`"""

import importlib

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.prompt_encoder.checked_loading import load_checked
from services.prompt_encoder.service import PromptEncoder
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.contracts.text_encoder import TextEncoder
from shared.models.families.registry import family_of
from shared.models.loras.libraries import AdapterLibraries
from shared.process.process import Process, arena, run_process
from shared.process.serving import load_components, serve_nodes


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
        families = {name: family_of(card.source) for name, card in catalogue.cards.items()}
        dtype = getattr(torch, settings.dtype)
        encoders, unusable = load_components(
            running,
            "the text encoders",
            {name: family.source for name, family in families.items()},
            {name: family.text_encoders for name, family in families.items()},
            lambda name: load_checked(families[name], settings.device, dtype),
        )
        libraries = AdapterLibraries(
            catalogue.lora_directory, settings, running.metrics, running.loader
        )
        adapters = {
            name: libraries.add(name, families[name], encoder.check, families[name].text_encoders)
            for name, encoder in encoders.items()
        }

        def wide(name: str) -> TextEncoder:
            return families[name].text_encoder(settings.device, torch.float32)

        handler = PromptEncoder(encoders, adapters, None if dtype is torch.float32 else wide)
        await serve_nodes(
            running, transport, (handler,), statistics=libraries.statistics, unusable=unusable
        )
        handler.close()


if __name__ == "__main__":
    run_process("prompt_encoder", main)
