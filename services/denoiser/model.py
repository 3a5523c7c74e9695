"""A model as the denoiser holds it: its network in an engine, and what its rows need to know."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from services.denoiser.engine import Engine
from services.denoiser.plan_step import Limits
from services.denoiser.unet import SdxlUnet
from shared.catalogue import local_directory
from shared.config import Settings
from shared.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Model:
    """`engine` is not started by `load`."""

    engine: Engine
    scheduler_config: Mapping[str, Any]
    latent_channels: int
    scale: int
    """Pixels per latent position."""


def load(
    name: str,
    source: str,
    settings: Settings,
    metrics: Metrics,
    on_crash: Callable[[BaseException], None],
) -> Model:
    """The network of model `name` in directory or hub id `source`; its engine is not started."""
    network = SdxlUnet.load(source, getattr(torch, settings.dtype), settings.device)
    limits = Limits(
        max_rows=settings.max_rows,
        max_admitted=settings.max_rows,
        max_waiting=2 * settings.max_rows,
        max_step_seconds=settings.max_step_seconds,
    )
    root = local_directory(source)
    scheduler = json.loads((root / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    vae = json.loads((root / "vae" / "config.json").read_text("utf-8"))
    return Model(
        engine=Engine(network, limits, on_crash=on_crash, on_batch=partial(metrics.step, name)),
        scheduler_config=scheduler,
        latent_channels=network.in_channels,
        scale=2 ** (len(vae["block_out_channels"]) - 1),
    )
