"""How often a row is checkpointed. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Interval:
    """Between two checkpoints lie `steps` at least (0: no checkpoints are made), which took
    `seconds` at least.

    A checkpoint costs a write to the record, and saves the repetition of the steps before it if the
    process dies before the next. The best interval is sqrt(2 x cost x mean time between deaths)
    (Young 1974, "A first order approximation to the optimum checkpoint interval"): for 3 ms and a
    death an hour, 4.6 s."""

    steps: int
    seconds: float = 0.0

    def over(self, steps: int, seconds: float) -> bool:
        """Whether a checkpoint is due, so many steps after the last, which took so long."""
        return self.steps > 0 and steps >= self.steps and seconds >= self.seconds

    @property
    def close(self) -> "Interval":
        """For a row whose last holder vanished: its next death shall be near a checkpoint."""
        return Interval(self.steps)


NEVER: Final = Interval(0)
