"""The asyncio side of the denoiser: a row is awaited, and its progress arrives in the event
loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from services.denoiser.engine.events import (
    Checkpointed,
    EngineStatistics,
    EngineStopped,
    Event,
    Failed,
    Finished,
    Progressed,
    StepReport,
    Yielded,
)
from services.denoiser.engine.executor import Errand
from services.denoiser.engine.step_loop import StepLoop
from services.denoiser.forward.predictors import Predictor
from services.denoiser.rows.row import Row
from shared.models.contracts.network import Network
from shared.policy.checkpoint_interval import NEVER, Interval
from shared.policy.cost_model import CostModel
from shared.policy.deadlines import has_time
from shared.policy.reported_load import has_capacity
from shared.policy.row_view import RowView
from shared.policy.step_scheduler import Limits

OnStep = Callable[[StepReport], None]
OnBatch = Callable[[int, float], None]
OnCheckpoint = Callable[[int, dict[str, torch.Tensor]], None]


@dataclass(slots=True, eq=False)
class _Run:
    latents: asyncio.Future[torch.Tensor]
    on_step: OnStep | None
    on_checkpoint: OnCheckpoint | None


class Engine:
    """Denoises many rows at once on one network.

        async with Engine(network) as engine:
            latents = await engine.run(row)

    A row joins at the next step boundary, and never waits for a batch to finish."""

    def __init__(
        self,
        network: Network,
        limits: Limits | None = None,
        cost: CostModel | None = None,
        on_crash: Callable[[BaseException], None] | None = None,
        predictors: Sequence[Predictor] = (),
    ) -> None:
        """`on_crash` is called in the event loop if the step loop ends by an error; the rows fail
        after that, and the process had better be replaced. `predictors`: ways to take steps beside
        the whole network at once, in their order; the first that applies takes the step."""
        self._network = network
        self._limits = limits or Limits()
        self._cost = cost or CostModel()
        self._on_crash = on_crash
        self._predictors = tuple(predictors)
        self._on_batch: list[OnBatch] = []
        self._runs: dict[int, _Run] = {}
        self._loop: StepLoop | None = None

    def watch(self, on_batch: OnBatch) -> None:
        """Call `on_batch` in the event loop with (rows, seconds) after each step of a batch."""
        self._on_batch.append(on_batch)

    async def start(self) -> None:
        post = asyncio.get_running_loop().call_soon_threadsafe
        self._loop = StepLoop(
            self._network,
            self._limits,
            self._cost,
            deliver=lambda events: post(self._deliver, events),
            crashed=lambda error: post(self._crashed, error),
            predictors=self._predictors,
        )
        self._loop.start()

    async def stop(self) -> None:
        """Return when the running step is over. Rows still in flight are checkpointed a last time,
        then fail with `EngineStopped`."""
        if self._loop is not None:
            await asyncio.to_thread(self._loop.stop)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def run(
        self,
        row: Row,
        on_step: OnStep | None = None,
        on_checkpoint: OnCheckpoint | None = None,
        interval: Interval = NEVER,
    ) -> torch.Tensor:
        """The row's final latents, float32 (1, C, H, W) on the CPU.

        `on_step` is called after each of its steps, `on_checkpoint` with (step, tensors) whenever
        `interval` is over, but not after the last; both in the event loop, and what they raise ends
        the row. When the awaiting task is cancelled, the row leaves at the next step boundary.
        Raises `QueueFull` at the waiting room's bound, `EngineStopped`, `NotFinite`, or whatever
        the network raised for this row alone."""
        if row.finished:
            return row.latents.cpu()
        return await self._run(row, on_step, on_checkpoint, interval)

    def change(self, row: Row, change: Callable[[Row], None]) -> None:
        """Apply `change` to `row`, which may be in a step: it holds from the next one on."""
        self._running().change(row, change)

    async def when_idle(self, errand: Errand) -> torch.Tensor:
        """The result of `errand`, which is given the network as it was loaded. Raises `QueueFull`
        if there is anything else to do."""
        return await asyncio.wrap_future(self._running().when_idle(errand))

    async def step_alone(self, row: Row, on_step: OnStep | None = None) -> None:
        """Take one step of `row` by itself, before everybody else. When this returns the engine has
        let go of the row. Raises as `run` does."""
        await self._run(row, on_step, alone=True)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Within, no row is in a step, nor takes one but by `step_alone`. Who holds again waits
        until the others have taken a step."""
        loop = self._running()
        try:
            await asyncio.to_thread(loop.hold)
            yield
        finally:
            loop.release()

    async def _run(
        self,
        row: Row,
        on_step: OnStep | None,
        on_checkpoint: OnCheckpoint | None = None,
        interval: Interval = NEVER,
        alone: bool = False,
    ) -> torch.Tensor:
        loop = self._running()
        run = _Run(asyncio.get_running_loop().create_future(), on_step, on_checkpoint)
        ticket = loop.submit(row, interval if on_checkpoint else NEVER, alone)
        self._runs[ticket] = run
        try:
            return await run.latents
        finally:
            del self._runs[ticket]
            loop.withdraw(ticket)

    @property
    def cost(self) -> CostModel:
        """The model of this network's step times as learnt so far."""
        return self._cost if self._loop is None else self._loop.cost

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def rows(self) -> Sequence[RowView]:
        """All that are in hand."""
        return () if self._loop is None else self._loop.rows()

    def has_capacity(self, promised: int) -> bool:
        """Whether one row more than those in hand and `promised`, together, would be let in at
        once, as far as can be told: nobody is kept waiting for the sake of others' deadlines or for
        want of room, no step would take too long, and nobody would be late."""
        if self._loop is not None and self._loop.declining:
            return False
        rows = self.rows
        coming = max(0, promised - len(rows))
        cost = self.cost
        enough = has_capacity(rows, coming, cost, self._limits.max_step_seconds)
        return enough and has_time(rows, coming, cost)

    def statistics(self) -> EngineStatistics:
        return self._running().statistics()

    def __repr__(self) -> str:
        if self._loop is None:
            return "<Engine not started>"
        s = self.statistics()
        return f"<Engine {s.rows} rows, {s.waiting} waiting, {s.rows_per_step:.1f} rows per step>"

    def _running(self) -> StepLoop:
        if self._loop is None:
            raise EngineStopped("the denoising engine is not running")
        return self._loop

    def _deliver(self, events: Sequence[Event]) -> None:
        report = next((o.report for o in events if isinstance(o, Progressed)), None)
        if report is not None:
            for on_batch in self._on_batch:
                on_batch(report.rows, report.seconds)
        for event in events:
            run = self._runs.get(event.ticket)
            if run is not None and not run.latents.done():
                try:
                    _tell(run, event)
                except Exception as error:
                    run.latents.set_exception(error)

    def _crashed(self, error: BaseException) -> None:
        if self._on_crash is not None:
            self._on_crash(error)
        for run in self._runs.values():
            if not run.latents.done():
                stopped = EngineStopped(f"the step loop failed: {error!r}")
                stopped.__cause__ = error
                run.latents.set_exception(stopped)


def _tell(run: _Run, event: Event) -> None:
    match event:
        case Progressed(report=report):
            if run.on_step is not None:
                run.on_step(report)
        case Checkpointed(step=step, tensors=tensors):
            if run.on_checkpoint is not None:
                run.on_checkpoint(step, tensors)
        case Finished(latents=latents) | Yielded(latents=latents):
            run.latents.set_result(latents)
        case Failed(error=error):
            run.latents.set_exception(error)
