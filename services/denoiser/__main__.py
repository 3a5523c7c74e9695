"""`python -m services.denoiser`"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.denoiser.node.event_publisher import EventPublisher
from services.denoiser.node.features import Features
from services.denoiser.node.model import (
    LoadedNetwork,
    ModelRunner,
    burst_capacity,
    limits,
    load_network,
)
from services.denoiser.service import Denoiser
from shared.host.lean_imports import lean_diffusers
from shared.host.terminate import terminate
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.policy.checkpoint_interval import Interval
from shared.process.component_memory import ComponentHost
from shared.process.process import Process, arena, run_process
from shared.process.served import ServedCatalogue
from shared.process.serving import serve_nodes


def die(error: BaseException) -> None:
    """The process ends with its step loop, before any row is told: which row did it is found
    out where they go on, as after any other death."""
    terminate("its step loop died", error)


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    lean_diffusers()


async def main(running: Process) -> None:
    settings = running.settings
    prepare_torch(settings.threads, settings.device)
    preload()
    served = await ServedCatalogue(
        running.bus, settings.sources, partial(Catalogue.of, settings)
    ).begin()
    async with arena(running) as transport:
        features = Features(running, transport, served.catalogue)
        runner = ModelRunner(running.metrics, limits(settings), features, die)
        publisher = EventPublisher(running.bus)
        handler = Denoiser(
            {},
            transport,
            publisher,
            capacity=settings.max_rows,
            burst_capacity=burst_capacity(settings),
            interval=Interval(settings.checkpoint_every, settings.checkpoint_seconds),
            occupation=features.occupation,
        )

        @asynccontextmanager
        async def serving(name: str, loaded: LoadedNetwork) -> AsyncIterator[None]:
            async with runner.running(loaded) as model:
                handler.hold(name, model)
                try:
                    yield
                finally:
                    handler.drop(name)

        await serve_nodes(
            running,
            transport,
            (handler,),
            ComponentHost(
                what="the denoising network",
                sources=lambda: served.catalogue.sources,
                folders=lambda name: (family_of(served.catalogue.sources[name]).denoiser,),
                load=lambda name: load_network(served.catalogue.cards[name], settings),
                serving=serving,
            ),
            served=served,
            statistics=lambda: {**handler.statistics(), **features.statistics()},
            background=[publisher.run],
        )


if __name__ == "__main__":
    run_process("denoiser", main)
