"""How images of a model are begun: the shape of their latents, and their step tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.denoiser.sampling.schedule_part import WHOLE, SchedulePart
from services.denoiser.sampling.step_table import StepTable, build_step_table
from shared.models.contracts.family import Family


@dataclass(frozen=True, slots=True)
class Sampling:
    family: Family
    scheduler_config: Mapping[str, Any]
    scale: int
    """Pixels per latent position."""

    @classmethod
    def of(cls, family: Family) -> "Sampling":
        """As the files of the family's model have it. Raises `Misconfigured`."""
        return cls(family, family.scheduler, family.space.scale)

    def latents(self, width: int, height: int) -> tuple[int, int, int]:
        """The shape (C, H, W) for an image of so many pixels."""
        return self.family.latent_channels, height // self.scale, width // self.scale

    def table(
        self,
        sampler: str,
        steps: int,
        width: int,
        height: int,
        start: int = 0,
        part: SchedulePart = WHOLE,
    ) -> StepTable:
        """For an image of so many pixels, without the first `start` steps and those outside `part`;
        raises as `build_step_table` does."""
        _, rows, columns = self.latents(width, height)
        return build_step_table(
            self.scheduler_config,
            sampler,
            steps,
            tokens=self.family.sequence_length(rows, columns),
            even_sigmas=self.family.even_sigmas,
            start=start,
            part=part,
        )
