"""What the step loop says: of each row after each step, and of itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from shared.errors import DarkroomError


class EngineStopped(DarkroomError):
    """The engine ended before the row did; the row can go on elsewhere from its checkpoint."""

    code = "engine_stopped"
    retryable = True


@dataclass(frozen=True, slots=True, eq=False)
class StepReport:
    """`step` of `steps` steps of a row are done; the last took `seconds`, with `rows` together."""

    step: int
    steps: int
    rows: int
    seconds: float
    preview: torch.Tensor | None
    """Predicted clean latents (1, C, H, W), after the steps named in `Row.previews`."""


@dataclass(frozen=True, slots=True, eq=False)
class Progressed:
    ticket: int
    report: StepReport


@dataclass(frozen=True, slots=True, eq=False)
class Checkpointed:
    ticket: int
    step: int
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    ticket: int
    latents: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Yielded:
    """A row has taken its step alone, and is let go; `latents` are not its last ones."""

    ticket: int
    latents: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    ticket: int
    error: BaseException


Event = Progressed | Checkpointed | Finished | Yielded | Failed


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    rows: int
    """Admitted now."""
    waiting: int
    """To be admitted, parked rows included."""
    parked: int
    """Now: rows that were admitted, and wait again for more urgent ones' sake."""
    parks: int
    """How often a row was parked, since the start."""
    steps: int
    """Forwards of the network, since the start."""
    row_steps: int
    """Steps of rows; divided by `steps`, the mean number of rows in a step."""
    step_seconds: float
    """Spent in steps, in total."""
    finished: int
    failed: int
    features: Mapping[str, float]
    """What the predictors count; see `Predictor.statistics`."""

    @property
    def rows_per_step(self) -> float:
        return self.row_steps / self.steps if self.steps else 0.0

    def counts(self) -> dict[str, float]:
        """All of it, under one name each."""
        counts: dict[str, float] = asdict(self)
        del counts["features"]
        return counts | dict(self.features)
