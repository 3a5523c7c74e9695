"""A model as the denoiser holds it: its network in an engine, and what its rows need to know."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch

from services.denoiser.cfg_parallel.split import AskBranch, CfgParallel
from services.denoiser.controlnet.exchange import Ask, ResidualExchange
from services.denoiser.engine.engine import Engine
from services.denoiser.mask_cache.lookup import CacheLookup
from services.denoiser.mask_cache.predictor import MaskedSteps
from services.denoiser.mask_cache.store import ActivationStore
from services.denoiser.node.default_request import ask_default
from services.denoiser.sampling.model_sampling import Sampling
from shared.config import Settings
from shared.models.cards import ModelCard
from shared.models.contracts.family import Family
from shared.models.contracts.network import MaskedNetwork
from shared.models.families.registry import family_of
from shared.models.loras.files import LoraFiles
from shared.models.loras.library import AdapterLibrary
from shared.policy.step_scheduler import Limits
from shared.subjects import CLASSES
from shared.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Model:
    """`engine` is not started by `load`."""

    engine: Engine
    sampling: Sampling
    library: AdapterLibrary
    templates: CacheLookup | None = None
    """None: masks are not cached."""


def limits(settings: Settings, models: int) -> Limits:
    """Of the engine of one of `models` models in a process. On the device are as many rows as one
    step may take, so that a full batch parks for urgent rows. What a process pulls may all be of
    one model; its waiting room has a place for each (see `PullLoop` for how many that can be)."""
    return Limits(
        max_rows=settings.max_rows,
        max_admitted=settings.max_rows,
        max_waiting=settings.max_rows + burst_capacity(settings) + models * len(CLASSES),
        max_step_seconds=settings.max_step_seconds,
        deadline_margin=settings.deadline_margin,
    )


def burst_capacity(settings: Settings) -> int:
    """Interactive rows that a process takes on while it is full: enough to park a whole batch."""
    return settings.max_rows


def activation_store(settings: Settings, families: Iterable[Family]) -> ActivationStore | None:
    """That of this host; None if none of these `families` has a use for it, or it may hold
    nothing."""
    if settings.template_bytes <= 0 or not any(family.masks for family in families):
        return None
    return ActivationStore(
        settings.template_memory,
        settings.template_dir,
        settings.template_bytes,
        settings.template_disk_bytes,
    )


@dataclass(frozen=True, slots=True)
class Resources:
    """What the models of one process share."""

    settings: Settings
    loras: LoraFiles
    metrics: Metrics
    limits: Limits
    ask: Ask
    """How ControlNets are asked."""
    on_crash: Callable[[BaseException], None]
    """Called when a model's step loop ends by an error."""
    store: ActivationStore | None = None
    """None: nothing is recorded of edits."""


def load(card: ModelCard, resources: Resources, ask_half: AskBranch) -> Model:
    """The network of this model, which asks other denoisers by `ask_half`; its engine is not
    started. It was asked for a step of its default request: raises `Misconfigured` if it cannot
    take it, or whatever loading does."""
    name, family = card.name, family_of(card.source)
    settings, metrics = resources.settings, resources.metrics
    network = family.network(settings.device, getattr(torch, settings.dtype))
    sampling = Sampling.of(family)
    ask_default(network, sampling, card)
    engine = Engine(
        network,
        resources.limits,
        on_crash=resources.on_crash,
        predictors=(ResidualExchange(resources.ask), CfgParallel(ask_half), MaskedSteps()),
    )
    engine.watch(partial(metrics.step, name))
    metrics.watch_parked(name, lambda: engine.statistics().parked)
    templates = None
    if resources.store is not None and isinstance(network, MaskedNetwork):
        templates = CacheLookup(resources.store, family, network)
    library = AdapterLibrary(
        resources.loras, family, network.check, settings.lora_bytes, (family.denoiser,)
    )
    metrics.watch_cache("loras", library.reading, name)
    return Model(engine, sampling, library, templates)
