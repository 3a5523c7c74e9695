"""`python -m services.controlnet`"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import shared.host.start_up  # noqa: F401 (before what takes long to import)
from services.controlnet.service import ControlNetService
from shared.errors import Misconfigured
from shared.host.lean_imports import lean_diffusers
from shared.host.torch_setup import prepare_torch
from shared.models.catalogue import sort_controls
from shared.models.contracts.controlnet import ControlNet
from shared.models.families.registry import control_family
from shared.models.files.directory import read_json
from shared.models.files.loading import load_each
from shared.process.process import Process, arena, run_process
from shared.worker.memory_budget import component_bytes
from shared.worker.worker import Worker

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
    weights = sum(component_bytes(card.source, "") for card in cards.values())
    what = f"the ControlNets {', '.join(cards)}"
    running.budget.refuse_larger(what, weights)
    dtype = getattr(torch, settings.dtype)
    networks, unloaded = load_each(
        {name: card.source for name, card in cards.items()},
        "controlnet",
        "the ControlNet",
        lambda name: load_checked(cards[name].source, dtype, settings.device),
    )
    async with arena(running) as transport:
        handler = ControlNetService(networks, running.bus, transport)
        worker = Worker(running, handler, transport)

        def statistics() -> Mapping[str, object]:
            return {**dataclasses.asdict(worker.statistics()), **handler.statistics()}

        await running.serve(
            worker.run,
            statistics=statistics,
            refusal=worker.refusal,
            metadata={"models": " ".join(handler.models)},
            unusable=(*unusable, *unloaded),
            background=[partial(handler.serve_steps, name) for name in handler.models],
        )
        handler.close()


if __name__ == "__main__":
    run_process("controlnet", main)
