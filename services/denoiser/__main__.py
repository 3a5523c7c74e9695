"""`python -m services.denoiser`"""

from contextlib import AsyncExitStack

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.denoiser.node.event_publisher import EventPublisher
from services.denoiser.node.features import Features
from services.denoiser.node.model import ModelLoader, burst_capacity, limits
from services.denoiser.service import Denoiser
from shared.host.lean_imports import lean_diffusers
from shared.host.terminate import terminate
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import Catalogue
from shared.models.families.registry import family_of
from shared.policy.checkpoint_interval import Interval
from shared.process.process import Process, arena, run_process
from shared.process.serving import load_components, serve_nodes


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
    catalogue = Catalogue.of(settings)
    cards = catalogue.cards
    families = {name: family_of(card.source) for name, card in cards.items()}
    async with arena(running) as transport, AsyncExitStack() as engines:
        features = Features(running, transport, catalogue, families.values())
        bounds = limits(settings, len(cards))
        loader = ModelLoader(settings, running.metrics, bounds, features, die)
        models, unusable = load_components(
            running,
            "the denoising network",
            {name: family.source for name, family in families.items()},
            {name: (family.denoiser,) for name, family in families.items()},
            lambda name: loader.load(cards[name]),
        )
        for model in models.values():
            await engines.enter_async_context(model.running())
        publisher = EventPublisher(running.bus)
        handler = Denoiser(
            models,
            transport,
            publisher,
            capacity=settings.max_rows,
            burst_capacity=burst_capacity(settings),
            interval=Interval(settings.checkpoint_every, settings.checkpoint_seconds),
            occupation=features.occupation,
        )
        engines_by_name = {name: model.engine for name, model in models.items()}
        await serve_nodes(
            running,
            transport,
            (handler,),
            statistics=lambda: {**handler.statistics(), **features.statistics()},
            unusable=unusable,
            background=[publisher.run, *features.background(engines_by_name)],
        )


if __name__ == "__main__":
    run_process("denoiser", main)
