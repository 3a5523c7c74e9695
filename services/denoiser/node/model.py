"""A model as the denoiser holds it: its network in an engine, and what its rows need to know."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.node.default_request import ask_default
from services.denoiser.node.features import Features
from services.denoiser.rows.feature import RowFeature
from services.denoiser.sampling.model_sampling import Sampling
from shared.config import Settings
from shared.models.cards import ModelCard
from shared.models.families.registry import family_of
from shared.policy.step_scheduler import Limits
from shared.service_classes import CLASSES
from shared.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Model:
    engine: Engine
    sampling: Sampling
    features: tuple[RowFeature, ...] = ()
    """Of its rows, in the order in which they extend them."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within, its engine takes steps."""
        try:
            async with self.engine:
                yield
        finally:
            for feature in self.features:
                feature.close()


def limits(settings: Settings, models: int) -> Limits:
    """Of the engine of one of `models` models in a process. On the device are as many rows as one
    step may take, so that a full batch parks for urgent rows. What a process pulls may all be of
    one model; its waiting room has a place for each (see `PullLoop` for how many that can be)."""
    return Limits(
        max_rows=settings.max_rows,
        max_admitted=settings.max_rows,
        max_waiting=settings.max_rows + burst_capacity(settings) + models * len(CLASSES),
        max_step_seconds=settings.max_step_seconds,
        deadline_grace=settings.deadline_margin,
    )


def burst_capacity(settings: Settings) -> int:
    """Interactive rows that a process takes on while it is full: enough to park a whole batch."""
    return settings.max_rows


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """Loads the models of one process."""

    settings: Settings
    metrics: Metrics
    limits: Limits
    features: Features
    on_crash: Callable[[BaseException], None]
    """Called when a model's step loop ends by an error."""

    def load(self, card: ModelCard) -> Model:
        """Its network was asked for a step of its default request; its engine is not started.
        Raises `Misconfigured` if it cannot take the step, or whatever loading does."""
        settings, metrics = self.settings, self.metrics
        family = family_of(card.source)
        network = family.network(settings.device, getattr(torch, settings.dtype))
        sampling = Sampling.of(family)
        ask_default(network, sampling, card)
        features = self.features.of_model(card.name, family, network)
        engine = Engine(
            network, self.limits, on_crash=self.on_crash, predictors=features.predictors
        )
        engine.watch(partial(metrics.step, card.name))
        metrics.watch_parked(card.name, lambda: engine.statistics().parked)
        return Model(engine, sampling, features.rows)
