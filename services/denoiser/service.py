"""The `denoise` node: embeddings and a seed become final latents, in the running batch."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from services.denoiser.engine import Engine
from services.denoiser.outbox import Outbox
from services.denoiser.outcomes import StepReport
from services.denoiser.plan_step import Limits
from services.denoiser.row import Conditioning, Row
from services.denoiser.step_table import build_step_table
from services.denoiser.unet import SdxlUnet
from shared import subjects
from shared.catalogue import local_directory
from shared.config import Settings
from shared.errors import ArenaFull, DarkroomError, HandleLost, InvalidRequest
from shared.jobs.graph import NodeKind
from shared.jobs.record import Checkpoint
from shared.messages import PreviewTask, StepProgress
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import current_span, step_event
from shared.tensors.handle import TensorHandle
from shared.tensors.torch_io import get_tensor, put_tensor
from shared.tensors.transport import Transport
from shared.worker import Task, Tensors

log = logging.getLogger(__name__)

LIFETIME: Final = 3600.0
"""Seconds after which final latents and checkpoints may be dropped, if nobody released them."""
PREVIEW_LIFETIME: Final = 60.0


class NoLongerWanted(DarkroomError):
    """The row's job ended, or another process has the row; what it would give is not wanted."""

    code = "no_longer_wanted"

    def __init__(self, job_id: str, node: str) -> None:
        super().__init__(f"{node} of job {job_id} is no longer wanted", job_id=job_id, node=node)


@dataclass(frozen=True, slots=True)
class Model:
    """A network that is loaded, with what its rows need to know."""

    engine: Engine
    scheduler_config: Mapping[str, Any]
    latent_channels: int
    scale: int
    """Pixels per latent position."""


class Denoiser:
    """Holds the networks of `models` (by name), each with an engine of its own."""

    kind: NodeKind = "denoise"

    def __init__(
        self,
        models: Mapping[str, Model],
        transport: Transport,
        outbox: Outbox,
        *,
        capacity: int,
        checkpoint_every: int,
    ) -> None:
        self.models = tuple(models)
        self.capacity = capacity
        self._models = dict(models)
        self._transport = transport
        self._outbox = outbox
        self._checkpoint_every = checkpoint_every

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Output `latents`, float32 (channels, height, width), as the autoencoder wants them."""
        model = self._models[task.spec.model]
        # In a thread: a tensor may come from another host, and a step table that is new here takes
        # up to 0.2 s to build; the news of all other rows would wait.
        row = await asyncio.to_thread(self._row, task, model)
        keeper = _CheckpointKeeper(task, self._transport)
        span = current_span()

        def on_step(report: StepReport) -> None:
            if keeper.unwanted:
                raise NoLongerWanted(task.job_id, task.node.name)
            task.progressed()
            step_event(span, report.step, report.rows, report.seconds)
            self._tell(task, report)

        try:
            latents = await model.engine.run(row, on_step, keeper.keep, self._checkpoint_every)
        finally:
            await keeper.settle()
        return {"latents": self._put(task, latents[0], LIFETIME)}

    def _row(self, task: Task, model: Model) -> Row:
        spec, index = task.spec, task.node.index
        tensors = {name: get_tensor(self._transport, h) for name, h in task.inputs.items()}
        height, width = spec.height // model.scale, spec.width // model.scale
        size = torch.tensor([[spec.height, spec.width, 0, 0, spec.height, spec.width]]).float()
        table = build_step_table(
            model.scheduler_config, spec.sampler, spec.steps, tokens=height * width // 4
        )
        row = Row.begin(
            job_id=task.job_id,
            node=task.node.name,
            index=index,
            seed=spec.seed + index,
            table=table,
            shape=(model.latent_channels, height, width),
            cond=Conditioning(tensors["embeds"][None], tensors["pooled"][None], size),
            uncond=(
                Conditioning(
                    tensors["negative_embeds"][None], tensors["negative_pooled"][None], size
                )
                if spec.guided
                else None
            ),
            guidance=spec.guidance,
            service_class=spec.service_class,
            previews=_preview_steps(spec.previews, table.steps),
        )
        return self._resumed(task, row)

    def _resumed(self, task: Task, row: Row) -> Row:
        """`row` where its last checkpoint left it; at its start if there is none to be read."""
        checkpoint = task.state.checkpoint
        if checkpoint is None:
            return row
        try:
            tensors = {n: get_tensor(self._transport, h) for n, h in checkpoint.tensors.items()}
            resumed = row.resume(checkpoint.step, tensors)
        except (HandleLost, InvalidRequest) as error:
            log.warning("the checkpoint at step %d is of no use: %s", checkpoint.step, error)
            return row
        log.info("resumed at step %d", checkpoint.step)
        return resumed

    def _tell(self, task: Task, report: StepReport) -> None:
        """Progress to whoever watches the job, and a preview to be decoded; both lossy."""
        progress = StepProgress(
            job_id=task.job_id,
            node=task.node.name,
            index=task.node.index,
            step=report.step,
            steps=report.steps,
            rows=report.rows,
            at=time.time(),
        )
        self._outbox.post(subjects.event(task.job_id), progress)
        if report.preview is not None:
            self._preview(task, report, report.preview[0])

    def _preview(self, task: Task, report: StepReport, latents: torch.Tensor) -> None:
        spec = task.spec
        try:
            handle = self._put(task, latents, PREVIEW_LIFETIME)
        except ArenaFull as error:
            log.info("a preview was dropped: %s", error)
            return
        preview = PreviewTask(
            job_id=task.job_id,
            index=task.node.index,
            partial_index=_preview_index(spec.previews, report.steps, report.step),
            step=report.step,
            latents=handle,
            output_format=spec.output_format,
            output_compression=spec.output_compression,
        )
        self._outbox.post(subjects.preview(spec.model), preview)

    def _put(self, task: Task, tensor: torch.Tensor, lifetime: float) -> TensorHandle:
        return put_tensor(
            self._transport,
            tensor,
            job_id=task.job_id,
            attempt=task.state.attempt,
            lifetime=lifetime,
        )

    def discard(self, outputs: Tensors) -> None:
        for handle in outputs.values():
            self._transport.free(handle)


class _CheckpointKeeper:
    """Writes a row's checkpoints into the arena and its record, one at a time, newest first."""

    def __init__(self, task: Task, transport: Transport) -> None:
        self._task = task
        self._transport = transport
        self._next: tuple[int, dict[str, torch.Tensor]] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._written: list[TensorHandle] = []
        self.unwanted = False
        """The record would not take a checkpoint: the job ended, or somebody else has the row."""

    def keep(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        self._next = (step, tensors)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """A checkpoint that cannot be written costs repeated steps after a crash, and no more."""
        while self._next is not None:
            (step, tensors), self._next = self._next, None
            written: list[TensorHandle] = []
            try:
                handles = {}
                for name, tensor in tensors.items():
                    handles[name] = put_tensor(
                        self._transport,
                        tensor,
                        job_id=self._task.job_id,
                        attempt=self._task.state.attempt,
                        lifetime=LIFETIME,
                    )
                    written.append(handles[name])
                kept = await self._task.checkpoint(Checkpoint(step=step, tensors=handles))
                self.unwanted = self.unwanted or not kept
            except Exception as error:
                log.warning("the checkpoint at step %d was not written: %s", step, error)
                kept = False
            superseded = self._written if kept else written
            self._written = written if kept else self._written
            for handle in superseded:
                self._transport.free(handle)

    async def settle(self) -> None:
        """Wait for the running write, so that it cannot race with the node's end."""
        self._next = None
        if self._writing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing


def _preview_steps(previews: int, steps: int) -> frozenset[int]:
    """Evenly spaced, neither at the very start nor at the end."""
    return frozenset(max(1, steps * (i + 1) // (previews + 1)) for i in range(previews))


def _preview_index(previews: int, steps: int, step: int) -> int:
    return sorted(_preview_steps(previews, steps)).index(step)


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
