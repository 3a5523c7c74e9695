"""A model as the denoiser holds it: its network in an engine, and what its rows need to know."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch

from services.denoiser.asked import ask_default
from services.denoiser.engine import Engine
from services.denoiser.plan_step import Limits
from services.denoiser.sampling import Sampling
from services.denoiser.sharing import AskHalf
from services.denoiser.steering import Ask
from services.denoiser.templates import Templates
from shared.adapters.files import LoraFiles
from shared.adapters.library import AdapterLibrary
from shared.config import Settings
from shared.families.base import Family
from shared.families.network import MaskedNetwork
from shared.families.registry import family_of
from shared.model_cards import ModelCard
from shared.subjects import CLASSES
from shared.telemetry.metrics import Metrics
from shared.templates.store import TemplateStore


@dataclass(frozen=True, slots=True)
class Model:
    """`engine` is not started by `load`."""

    engine: Engine
    sampling: Sampling
    library: AdapterLibrary
    templates: Templates | None = None
    """None: masks are not cached."""


def limits(settings: Settings, models: int) -> Limits:
    """Of the engine of one of `models` models in a process. On the device are as many rows as one
    step may take, so that a full batch parks for urgent rows. What a process pulls may all be of
    one model; its waiting room has a place for each (see `PullLoop` for how many that can be)."""
    return Limits(
        max_rows=settings.max_rows,
        max_admitted=settings.max_rows,
        max_waiting=settings.max_rows + reserve(settings) + models * len(CLASSES),
        max_step_seconds=settings.max_step_seconds,
        deadline_margin=settings.deadline_margin,
    )


def reserve(settings: Settings) -> int:
    """Interactive rows that a process takes on while it is full: enough to park a whole batch."""
    return settings.max_rows


def template_store(settings: Settings, families: Iterable[Family]) -> TemplateStore | None:
    """That of this host; None if none of these `families` has a use for it, or it may hold
    nothing."""
    if settings.template_bytes <= 0 or not any(family.masks for family in families):
        return None
    return TemplateStore(
        settings.template_memory,
        settings.template_dir,
        settings.template_bytes,
        settings.template_disk_bytes,
    )


def load(
    card: ModelCard,
    loras: LoraFiles,
    settings: Settings,
    metrics: Metrics,
    bounds: Limits,
    on_crash: Callable[[BaseException], None],
    ask: Ask,
    ask_half: AskHalf,
    store: TemplateStore | None = None,
) -> Model:
    """The network of this model, which finds its adapters in `loras`, and asks ControlNets by
    `ask`, other denoisers by `ask_half`, and keeps templates in `store`; its engine is not started.
    It was asked for a step of its default request: raises `Misconfigured` if it cannot take it, or
    whatever loading does."""
    name, family = card.name, family_of(card.source)
    network = family.network(settings.device, getattr(torch, settings.dtype))
    sampling = Sampling.of(family)
    ask_default(network, sampling, card)
    engine = Engine(network, bounds, on_crash=on_crash, ask=ask, ask_half=ask_half)
    engine.watch(partial(metrics.step, name))
    metrics.watch_parked(name, lambda: engine.statistics().parked)
    parts = (family.denoiser,)
    templates = None
    if store is not None and isinstance(network, MaskedNetwork):
        templates = Templates(store, family, network)
    library = AdapterLibrary(loras, family, network.check, settings.lora_bytes, parts)
    metrics.watch_cache("loras", library.reading, name)
    return Model(
        engine=engine,
        sampling=sampling,
        library=library,
        templates=templates,
    )
