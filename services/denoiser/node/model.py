"""A model as the denoiser holds it: its network in an engine, and what its rows need to know."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch

from services.denoiser.engine.engine import Engine
from services.denoiser.node.default_request import ask_default
from services.denoiser.node.features import Features
from services.denoiser.rows.feature import RowFeature
from services.denoiser.sampling.model_sampling import Sampling
from shared.config import Settings
from shared.host.tasks import alongside
from shared.models.cards import ModelCard
from shared.models.contracts.family import Family
from shared.models.contracts.network import Network
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


MOST_MODELS: Final = 256
"""In one process, by which its waiting rooms are measured."""


def limits(settings: Settings) -> Limits:
    """Of the engine of each model in a process. On the device are as many rows as one step may
    take, so that a full batch parks for urgent rows. What a process pulls may all be of one model;
    its waiting room has a place for each (see `PullLoop` for how many that can be)."""
    return Limits(
        max_rows=settings.max_rows,
        max_admitted=settings.max_rows,
        max_waiting=settings.max_rows + burst_capacity(settings) + MOST_MODELS * len(CLASSES),
        max_step_seconds=settings.max_step_seconds,
        deadline_grace=settings.deadline_margin,
    )


def burst_capacity(settings: Settings) -> int:
    """Interactive rows that a process takes on while it is full: enough to park a whole batch."""
    return settings.max_rows


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A model's denoising network, which was asked for a step of its default request."""

    name: str
    family: Family
    network: Network
    sampling: Sampling


def load_network(card: ModelCard, settings: Settings) -> LoadedNetwork:
    """Raises `Misconfigured` if it cannot take the step, or whatever loading does."""
    family = family_of(card.source)
    network = family.network(settings.device, getattr(torch, settings.dtype))
    sampling = Sampling.of(family)
    ask_default(network, sampling, card)
    return LoadedNetwork(card.name, family, network, sampling)


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """Runs the models of one process."""

    metrics: Metrics
    limits: Limits
    features: Features
    on_crash: Callable[[BaseException], None]
    """Called when a model's step loop ends by an error."""

    @asynccontextmanager
    async def running(self, loaded: LoadedNetwork) -> AsyncIterator[Model]:
        """Within, the model's engine takes steps, and halves of others' when it is idle."""
        name = loaded.name
        features = self.features.of_model(name, loaded.family, loaded.network)
        engine = Engine(
            loaded.network, self.limits, on_crash=self.on_crash, predictors=features.predictors
        )
        engine.watch(partial(self.metrics.step, name))
        self.metrics.watch_parked(name, lambda: engine.statistics().parked)
        model = Model(engine, loaded.sampling, features.rows)
        try:
            async with model.running(), alongside(self.features.help_others(name, engine)):
                yield model
        finally:
            self.features.forget(name)
            self.metrics.forget_model(name)
