"""`python -m services.prompt_encoder`"""

import dataclasses
from collections.abc import Mapping

from services.prompt_encoder.encoder import TEXT_PARTS
from services.prompt_encoder.service import PromptEncoder, load
from shared.adapters.fetch import Fetcher
from shared.adapters.files import LoraFiles
from shared.adapters.library import AdapterLibrary
from shared.catalogue import Catalogue, unet_config
from shared.memory_budget import component_bytes
from shared.process import Process, arena, run_process
from shared.torch_setup import prepare_torch
from shared.worker import Worker


async def main(running: Process) -> None:
    async with arena(running) as transport:
        settings = running.settings
        prepare_torch(settings.threads)
        catalogue = Catalogue.of(settings)
        cards = catalogue.cards.values()
        weights = component_bytes((c.source for c in cards), "text_encoder", "text_encoder_2")
        names = ", ".join(c.name for c in cards)
        running.budget.refuse_larger(f"the text encoders of {names}", weights)
        encoders = load([(c.name, c.source) for c in cards], settings.device, settings.dtype)
        files = LoraFiles(catalogue.shelf, Fetcher.of(settings))
        libraries = {
            c.name: AdapterLibrary(
                files,
                unet_config(c.source),
                encoders[c.name].check,
                settings.lora_bytes,
                TEXT_PARTS,
            )
            for c in cards
        }
        handler = PromptEncoder(encoders, libraries, transport)
        worker = Worker(
            running.bus, handler, settings, running.metrics, running.name, running.budget.room
        )

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
            metadata={"models": " ".join(handler.models)},
        )
        handler.close()


if __name__ == "__main__":
    run_process("prompt_encoder", main)
