"""The `denoise` node: embeddings and a seed become final latents, in the running batch."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Final

import torch

from services.denoiser.engine.engine import Engine, OnStep
from services.denoiser.engine.events import EngineStopped, StepReport
from services.denoiser.engine.occupation import Occupation
from services.denoiser.load import component
from services.denoiser.node.build_row import build_row
from services.denoiser.node.checkpoints import CheckpointKeeper, Said
from services.denoiser.node.event_publisher import EventPublisher
from services.denoiser.node.exclusive_run import ExclusiveRun
from services.denoiser.node.model import Model
from services.denoiser.node.progress import ProgressReports
from services.denoiser.node.quarantine import mark, quarantine_steps, serve_alone
from services.denoiser.rows.feature import Reading, Running
from services.denoiser.rows.row import Row
from shared.errors import HandedOver, NoLongerWanted
from shared.messages import ComponentReport
from shared.messages.handle import TensorHandle
from shared.policy.checkpoint_interval import Interval
from shared.policy.reported_load import level, seconds_in_hand
from shared.services import NodeKind
from shared.telemetry.tracing import current_span, step_event
from shared.tensors.transport import Transport
from shared.worker.task import Handler, Task

USUAL_SECONDS: Final = 1.0
"""What a row is taken to need before there was any."""


class Denoiser(Handler):
    """Holds the networks of `models` (by name), each with an engine of its own."""

    kind: NodeKind = "denoise"
    isolates = True

    def __init__(
        self,
        models: Mapping[str, Model],
        transport: Transport,
        publisher: EventPublisher,
        *,
        capacity: int,
        burst_capacity: int,
        interval: Interval,
        occupation: Occupation | None = None,
    ) -> None:
        """`occupation`: notified when there is work and when there is none."""
        self.models = ()
        self.capacity = capacity
        self.burst_capacity = burst_capacity
        self._models: dict[str, Model] = {}
        self._transport = transport
        self._progress = ProgressReports(publisher)
        self._interval = interval
        self._exclusive_run = ExclusiveRun(self._engines)
        self._occupation = occupation or Occupation()
        self._tasks: defaultdict[str, set[Task]] = defaultdict(set)
        self._draining: set[str] = set()
        """Models whose rows are handed over."""
        self._usual_seconds = USUAL_SECONDS
        for name, model in models.items():
            self.hold(name, model)

    def hold(self, name: str, model: Model) -> None:
        """Nodes of model `name` can be run from now on."""
        model.engine.watch(partial(self._beat, name))
        self._models[name] = model
        self._draining.discard(name)
        self.models = tuple(self._models)

    def drop(self, name: str) -> None:
        """No node of model `name` is in hand, or comes any more."""
        del self._models[name]
        self.models = tuple(self._models)

    def _engines(self) -> list[Engine]:
        return [model.engine for model in self._models.values()]

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Output `latents`, float32 (channels, height, width), as the autoencoder wants them."""
        model = self._models[task.model]
        keeper = CheckpointKeeper(task)
        on_step = self._on_step(task, keeper)
        with self._alive(task):
            try:
                readings = await self._fetched(task, model)
                if task.suspect:
                    row = await self._acquitted(task, model, readings, keeper, on_step)
                else:
                    row = await self._row(task, model, readings)
                latents = await self._denoised(task, model, row, keeper, on_step)
            except EngineStopped as stopped:
                if task.model not in self._draining:
                    raise
                await keeper.flush()
                raise HandedOver(task.job_id, task.node.name) from stopped
            finally:
                await keeper.settle()
        return {"latents": task.put(latents[0])}

    def has_capacity(self) -> bool:
        """What an engine would keep waiting is better off in the queue, where another denoiser may
        take it."""
        return all(
            model.engine.has_capacity(len(self._tasks[name]))
            for name, model in self._models.items()
        )

    def load(self, in_hand: int) -> int:
        """What a pull tells while `in_hand` nodes are: how long they take, all models together, for
        these take turns. Those that are no rows yet take as long as rows did the last time there
        were any."""
        count, seconds = 0, 0.0
        for model in self._models.values():
            rows = model.engine.rows
            count += len(rows)
            seconds += seconds_in_hand(rows, model.engine.cost)
        if count:
            self._usual_seconds = seconds / count
        coming = max(0, in_hand - count)
        return level(seconds + coming * self._usual_seconds, in_hand)

    def components(self) -> list[ComponentReport]:
        """What is in hand, and how fast it gets on, for planners."""
        return [
            component(name, model.engine, len(self._tasks[name]))
            for name, model in self._models.items()
        ]

    def statistics(self) -> Mapping[str, object]:
        """Of the engines, by model."""
        engines = {name: model.engine for name, model in self._models.items()}
        return {"engines": {name: one.statistics().counts() for name, one in engines.items()}}

    async def drain(self) -> None:
        """All rows stop at the step boundary, and are handed over."""
        self._draining.update(self._models)
        await asyncio.gather(*(engine.stop() for engine in self._engines()))

    async def let_go(self, model: str) -> None:
        """As `drain`, of the rows of this model alone."""
        self._draining.add(model)
        await self._models[model].engine.stop()

    def _stay(self, task: Task) -> None:
        """Raises `HandedOver` once its model is let go."""
        if task.model in self._draining:
            raise HandedOver(task.job_id, task.node.name)

    async def _denoised(
        self, task: Task, model: Model, row: Row, keeper: CheckpointKeeper, on_step: OnStep
    ) -> torch.Tensor:
        """The row's final latents."""
        keeper.said = partial(_said, task, row)
        interval = self._interval.close if task.state.losses else self._interval
        running = Running(task, row, model.engine.change, self._exclusive_run.together)
        try:
            async with AsyncExitStack() as stack:
                for feature in model.features:
                    await stack.enter_async_context(feature.running(running))
                latents = await model.engine.run(row, on_step, keeper.keep, interval)
        finally:
            row.close()
        said = _said(task, row, row.table.steps)
        task.approximations.update(said.approximations)
        task.warnings.update(said.warnings)
        return latents

    async def _fetched(self, task: Task, model: Model) -> list[Reading]:
        """How what its row needs is read, which is on this host now."""
        found = [await feature.fetch(task) for feature in model.features]
        return [reading for reading in found if reading is not None]

    async def _row(self, task: Task, model: Model, readings: Sequence[Reading]) -> Row:
        async with self._exclusive_run.together():
            return await self._build(task, model, readings)

    async def _acquitted(
        self,
        task: Task,
        model: Model,
        readings: Sequence[Reading],
        keeper: CheckpointKeeper,
        on_step: OnStep,
    ) -> Row:
        """The row of a suspect, after the steps that it had to take alone."""
        async with self._exclusive_run.alone():
            task.progressed()
            self._stay(task)
            await mark(task)
            row = await self._build(task, model, readings)
            keeper.said = partial(_said, task, row)
            steps = quarantine_steps(row, self._interval)
            await serve_alone(row, steps, model.engine, keeper, on_step)
            return row

    async def _build(self, task: Task, model: Model, readings: Sequence[Reading]) -> Row:
        extensions = [await read() for read in readings]
        # In a thread, for it blocks: the progress of all other rows would wait.
        return await asyncio.to_thread(build_row, task, model, extensions, self._transport)

    def _on_step(self, task: Task, keeper: CheckpointKeeper) -> OnStep:
        span = current_span()

        def on_step(report: StepReport) -> None:
            if keeper.unwanted:
                raise NoLongerWanted(task.job_id, task.node.name)
            step_event(span, report.step, report.rows, report.seconds)
            self._progress.publish(task, report)

        return on_step

    @contextmanager
    def _alive(self, task: Task) -> Iterator[None]:
        """Within, the steps of its model's batch are signs of life of `task`, whether it takes part
        or waits for its turn; so are those of a row for which the whole process is held."""
        tasks = self._tasks[task.model]
        tasks.add(task)
        try:
            with self._occupation.working():
                yield
        finally:
            tasks.remove(task)

    def _beat(self, model: str, rows: int, seconds: float) -> None:
        alive = self._tasks.values() if self._exclusive_run.occupied else [self._tasks[model]]
        for tasks in alive:
            for task in tasks:
                task.progressed()


def _said(task: Task, row: Row, steps: int) -> Said:
    """Of the row's first `steps` steps, here and wherever it was before."""
    approximations = task.approximations | row.approximations(steps)
    warnings = task.warnings | row.warnings()
    return Said(tuple(sorted(approximations)), tuple(sorted(warnings)))
