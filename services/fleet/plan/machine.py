"""What this machine has for a fleet, and the layout that follows from it."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.fleet.plan.checks import naming
from services.fleet.plan.processes import FleetOptions, catalogue_of
from shared.config import Settings
from shared.models.families.registry import family_of
from shared.policy.fleet_layout import Layout, Machine, Weights, choose_layout
from shared.process.memory import free_memory
from shared.worker.memory_budget import component_bytes

DEVICES: Final = Path("/dev")


def with_layout(
    options: FleetOptions, environ: Mapping[str, str] = os.environ
) -> tuple[FleetOptions, Layout]:
    """`options` with denoisers for this machine, unless they say how many; and the choice. Reads
    the models' files. Raises `Misconfigured`."""
    settings = Settings.from_env(environ)
    machine = Machine(
        cores=options.cores,
        memory=free_memory(),
        gpu=settings.device != "cpu",
        devices=visible_gpus(environ) if settings.device == "cuda" else (),
    )
    chosen = options.replicas.get("denoiser")
    with naming("--model"):
        cards = catalogue_of(options.models, environ).cards.values()
        sources = [card.source for card in cards]
        weights = replace(weights_of(sources), shared=_shares_pages(settings))
    layout = choose_layout(machine, weights, chosen, settings.threads)
    begin = min(layout.denoisers, options.most.get("denoiser", layout.denoisers))
    replicas = {**options.replicas, "denoiser": begin}
    return replace(options, replicas=replicas, devices=machine.devices), layout


def weights_of(models: Sequence[str]) -> Weights:
    """Of the files that are here: a hub id may have none yet."""
    families = [family_of(source) for source in models]
    denoising = [component_bytes(family.source, family.denoiser) for family in families]
    return Weights(
        denoising=sum(denoising) if all(denoising) else 0,
        all=sum(component_bytes(f.source, *f.components) for f in families),
    )


def _shares_pages(settings: Settings) -> bool:
    """Whether denoisers of this host have the pages of their weights in common. Weights that have
    to be converted are, as long as they may be kept on disk."""
    return sys.platform == "linux" and settings.weights_disk_bytes > 0


def visible_gpus(environ: Mapping[str, str], devices: Path = DEVICES) -> tuple[str, ...]:
    """As CUDA_VISIBLE_DEVICES names them, without loading CUDA."""
    if (given := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in given.split(",")]
        return tuple(name for name in names if name and name != "-1")
    return tuple(str(number) for number, _ in enumerate(devices.glob("nvidia[0-9]*")))
