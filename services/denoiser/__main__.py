"""`python -m services.denoiser`"""

import dataclasses
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.denoiser.cfg_parallel.remote import CfgWorker, RemoteBranches
from services.denoiser.controlnet.client import ControlNets
from services.denoiser.node.event_publisher import EventPublisher
from services.denoiser.node.model import Resources, activation_store, burst_capacity, limits, load
from services.denoiser.service import Denoiser
from shared.host.lean_imports import lean_diffusers
from shared.host.terminate import terminate
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.models.files.loading import load_each
from shared.models.loras.files import LoraFiles
from shared.models.loras.sources.fetch import Fetcher
from shared.policy.checkpoint_interval import Interval
from shared.process.process import Process, arena, run_process
from shared.worker.memory_budget import component_bytes
from shared.worker.worker import Worker


def die(error: BaseException) -> None:
    """The process ends with its step loop, before any row is told: which row did it is found
    out where they go on, as after any other death."""
    terminate("its step loop died", error)


async def main(running: Process) -> None:
    settings = running.settings
    prepare_torch(settings.threads, settings.device)
    lean_diffusers("peft", "transformers")
    catalogue = Catalogue.of(settings)
    cards = catalogue.cards

    families = [family_of(card.source) for card in cards.values()]
    weights = sum(component_bytes(family.source, family.denoiser) for family in families)
    what = f"the denoising network of {', '.join(cards)}"
    running.budget.refuse_larger(what, weights)
    bounds = limits(settings, len(cards))
    async with arena(running) as transport, AsyncExitStack() as engines:
        controls = ControlNets(running.bus, transport, settings.control_seconds)
        files, metrics = LoraFiles(catalogue.shelf, Fetcher.of(settings)), running.metrics
        peers = {name: RemoteBranches(running.bus, transport, name) for name in cards}
        store = activation_store(settings, families)
        resources = Resources(settings, files, metrics, bounds, controls, die, store)
        models, unusable = load_each(
            {name: card.source for name, card in cards.items()},
            "model",
            "the denoising network",
            lambda name: load(cards[name], resources, peers[name]),
        )
        metrics.watch_cache("fetched_loras", files.reading)
        if store is not None:
            metrics.watch_cache("templates", store.in_memory)
            metrics.watch_cache("spilled_templates", store.on_disk)
        for model in models.values():
            if model.templates is not None:
                engines.enter_context(model.templates)
            await engines.enter_async_context(model.engine)
        outbox = EventPublisher(running.bus)
        handler = Denoiser(
            models,
            transport,
            outbox,
            capacity=settings.max_rows,
            reserve=burst_capacity(settings),
            interval=Interval(settings.checkpoint_every, settings.checkpoint_seconds),
        )
        assistant = CfgWorker(running.bus, transport, handler.occupation)
        worker = Worker(
            running.bus,
            handler,
            settings,
            running.metrics,
            running.name,
            running.budget,
            load=handler.load,
        )

        def statistics() -> Mapping[str, object]:
            engines = {
                n: m.engine.statistics().counts() | {"halves": assistant.halves[n]}
                for n, m in models.items()
            }
            loras = {n: dataclasses.asdict(m.library.statistics()) for n, m in models.items()}
            return {
                **dataclasses.asdict(worker.statistics()),
                "engines": engines,
                "loras": loras,
                "fetched_loras": dataclasses.asdict(files.statistics()),
                "templates": None if store is None else dataclasses.asdict(store.statistics()),
                "control_retries": controls.retries,
            }

        await running.serve(
            worker.run,
            statistics=statistics,
            refusal=worker.refusal,
            metadata={"models": " ".join(handler.models)},
            unusable=unusable,
            background=[
                outbox.run,
                *(
                    partial(assistant.serve, n, m.sampling.family.conditioning, m.engine.when_idle)
                    for n, m in models.items()
                ),
            ],
        )


if __name__ == "__main__":
    run_process("denoiser", main)
