"""The `denoise` node: embeddings and a seed become final latents, in the running batch."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

import torch

from services.denoiser.checkpoints import CheckpointKeeper
from services.denoiser.model import Model
from services.denoiser.outbox import Outbox
from services.denoiser.outcomes import StepReport
from services.denoiser.row import Conditioning, Row
from services.denoiser.step_table import build_step_table
from shared import subjects
from shared.errors import ArenaFull, DarkroomError, HandleLost, InvalidRequest
from shared.jobs.graph import NodeKind
from shared.messages import PreviewTask, StepProgress
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
        keeper = CheckpointKeeper(task, self._transport, LIFETIME)
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


def _preview_steps(previews: int, steps: int) -> frozenset[int]:
    """Evenly spaced, neither at the very start nor at the end."""
    return frozenset(max(1, steps * (i + 1) // (previews + 1)) for i in range(previews))


def _preview_index(previews: int, steps: int, step: int) -> int:
    return sorted(_preview_steps(previews, steps)).index(step)
