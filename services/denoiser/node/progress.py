"""What a row's steps give its job's watchers: progress, and previews to be decoded. All lossy."""

import logging
import time
from typing import Final

import torch

from services.denoiser.engine.events import StepReport
from services.denoiser.node.build_row import preview_steps
from services.denoiser.node.event_publisher import EventPublisher
from shared import subjects
from shared.errors import ArenaFull
from shared.messages import PreviewTask, StepProgress
from shared.worker.task import Task

log = logging.getLogger(__name__)

PREVIEW_LIFETIME: Final = 60.0
"""Seconds."""


class ProgressReports:
    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher

    def publish(self, task: Task, report: StepReport) -> None:
        progress = StepProgress(
            job_id=task.job_id,
            node=task.node.name,
            index=task.node.index,
            step=report.step,
            steps=report.steps,
            rows=report.rows,
            at=time.time(),
        )
        self._publisher.post(subjects.event(task.job_id), progress)
        if report.preview is not None:
            self._preview(task, report, report.preview[0])

    def _preview(self, task: Task, report: StepReport, latents: torch.Tensor) -> None:
        job = task.spec
        try:
            handle = task.put(latents, PREVIEW_LIFETIME)
        except ArenaFull as error:
            log.info("a preview was dropped: %s", error)
            return
        preview = PreviewTask(
            job_id=task.job_id,
            index=task.node.index,
            partial_index=sorted(preview_steps(job.previews, report.steps)).index(report.step),
            step=report.step,
            latents=handle,
            output_format=job.output_format,
            output_compression=job.output_compression,
        )
        self._publisher.post(subjects.preview(task.model), preview)
