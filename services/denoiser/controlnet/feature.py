"""The ControlNets of a task's row."""

from services.denoiser.controlnet.state import ControlState, ControlUse
from services.denoiser.rows.feature import RowFeature
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from shared.jobs.graph import HINT
from shared.messages.nodes import Denoise
from shared.worker.task import Task


class Controls(RowFeature):
    def extend(self, task: Task, row: Row, image: SourceImage | None) -> ControlState | None:
        asked = task.parameters(Denoise)
        if not asked.controls:
            return None
        return ControlState(
            controls=tuple(
                ControlUse(
                    model=control.model,
                    hint=task.inputs(control.hint)[HINT],
                    scale=control.scale,
                    start=control.start,
                    end=control.end,
                    guess_mode=control.guess_mode,
                )
                for control in asked.controls
            ),
            lag=asked.control_lag > 0,
        )
