"""`python -m services.controlnet`"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.controlnet.service import ControlNetService
from shared.errors import Misconfigured
from shared.host.lean_imports import lean_diffusers
from shared.host.tasks import alongside
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import sort_controls
from shared.models.contracts.controlnet import ControlNet
from shared.models.families.registry import control_family
from shared.models.files.directory import read_json
from shared.process.component_memory import ComponentHost
from shared.process.process import Process, arena, run_process
from shared.process.serving import serve_nodes

if TYPE_CHECKING:
    import torch


def load_checked(source: str, dtype: torch.dtype, device: str) -> ControlNet:
    """The ControlNet in `source`, which has shown that it can take a step."""
    family = control_family(source, read_json(source, "config.json"))
    network = family.control_network(source, device, dtype)
    network.ask()
    return network


def preload() -> None:
    """Import what every start needs, before anything is known of a model."""
    lean_diffusers()


async def main(running: Process) -> None:
    import torch

    settings = running.settings
    prepare_torch(settings.threads, settings.device)
    preload()
    cards, unusable = sort_controls(settings.control_sources)
    if not cards:
        reasons = "; ".join(one.reason for one in unusable) or "there is none"
        raise Misconfigured(
            f"no ControlNet is in DARKROOM_CONTROLS={settings.controls!r}: {reasons}"
        )
    dtype = getattr(torch, settings.dtype)
    async with arena(running) as transport:
        handler = ControlNetService({}, running.bus, transport)

        @asynccontextmanager
        async def serving(name: str, network: ControlNet) -> AsyncIterator[None]:
            handler.hold(name, network)
            try:
                async with alongside(handler.serve_steps(name)):
                    yield
            finally:
                await handler.drop(name)

        await serve_nodes(
            running,
            transport,
            (handler,),
            ComponentHost(
                what="the ControlNet",
                sources=lambda: {name: card.source for name, card in cards.items()},
                folders=lambda name: ("",),
                load=lambda name: load_checked(cards[name].source, dtype, settings.device),
                serving=serving,
                kind="controlnet",
            ),
            statistics=handler.statistics,
            unusable=lambda: unusable,
        )


if __name__ == "__main__":
    run_process("controlnet", main)
