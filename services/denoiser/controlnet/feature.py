"""The ControlNets of a task's row."""

from services.denoiser.controlnet.state import ControlState, ControlUse
from services.denoiser.rows.feature import RowFeature
from services.denoiser.rows.row import Row
from services.denoiser.sampling.initial_latents import SourceImage
from shared.worker.task import Task


class Controls(RowFeature):
    def extend(self, task: Task, row: Row, image: SourceImage | None) -> ControlState | None:
        spec, inputs = task.spec, task.inputs
        if not spec.controls:
            return None
        return ControlState(
            controls=tuple(
                ControlUse(
                    model=control.model,
                    hint=inputs[f"hint-{k}"],
                    scale=control.scale,
                    start=control.start,
                    end=control.end,
                    guess_mode=control.guess_mode,
                )
                for k, control in enumerate(spec.controls)
            ),
            lag=spec.control_lag > 0,
        )
