"""`python -m services.prompt_encoder`"""

import dataclasses
import importlib
from collections.abc import Mapping

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.prompt_encoder.checked_loading import load_checked
from services.prompt_encoder.service import PromptEncoder
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.models.files.loading import load_each
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.models.loras.sources.fetch import Fetcher
from shared.process.process import Process, arena, run_process
from shared.worker.memory_budget import component_bytes
from shared.worker.worker import Worker


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    importlib.import_module("transformers.modeling_utils")


async def main(running: Process) -> None:
    import torch

    preload()

    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads, settings.device)
        catalogue = Catalogue.of(settings)
        families = {name: family_of(card.source) for name, card in catalogue.cards.items()}
        weights = sum(component_bytes(f.source, *f.text_encoders) for f in families.values())
        what = f"the text encoders of {', '.join(families)}"
        running.budget.refuse_larger(what, weights)
        dtype = getattr(torch, settings.dtype)
        encoders, unusable = load_each(
            {name: card.source for name, card in catalogue.cards.items()},
            "model",
            "the text encoders",
            lambda name: load_checked(families[name], settings.device, dtype),
        )
        files = LoraFiles(catalogue.lora_directory, Fetcher.of(settings))
        libraries = {
            name: AdapterLibrary(
                files,
                family,
                encoders[name].check,
                settings.lora_bytes,
                family.text_encoders,
            )
            for name, family in families.items()
            if name in encoders
        }
        running.metrics.watch_cache("fetched_loras", files.reading)
        for name, library in libraries.items():
            running.metrics.watch_cache("loras", library.reading, name)
        narrow = dtype is not torch.float32
        handler = PromptEncoder(
            encoders,
            libraries,
            (lambda name: families[name].text_encoder(settings.device, torch.float32))
            if narrow
            else None,
        )
        worker = Worker(running, handler, transport)

        def statistics() -> Mapping[str, object]:
            loras = {name: dataclasses.asdict(one.statistics()) for name, one in libraries.items()}
            return {
                **dataclasses.asdict(worker.statistics()),
                "loras": loras,
                "fetched_loras": dataclasses.asdict(files.statistics()),
            }

        await running.serve(
            worker.run,
            statistics=statistics,
            refusal=worker.refusal,
            metadata={"models": " ".join(handler.models)},
            unusable=unusable,
        )
        handler.close()


if __name__ == "__main__":
    run_process("prompt_encoder", main)
