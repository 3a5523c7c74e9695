"""A part of the steps, told by noise levels: so two models draw one image, one after the other."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.errors import InvalidRequest


class SchedulePart(NamedTuple):
    """From `start` to `end`, in shares of the times that a model was trained at, the noisiest
    first; as `denoising_start` and `denoising_end` of diffusers' SDXL pipelines."""

    start: float = 0.0
    end: float = 1.0

    def of(self, timesteps: Sequence[float], times: int, order: int) -> tuple[int, int]:
        """The first of the steps at `timesteps`, and the one after the last. `times`: how many a
        model was trained at; `order`: entries that make a step. Raises `InvalidRequest` if there is
        none between."""
        if not 0.0 <= self.start < 1.0:  # also refuses NaN
            raise InvalidRequest("start", self.start, "a number from 0 to less than 1")
        if not self.start < self.end <= 1.0:
            raise InvalidRequest("end", self.end, f"a number above {self.start:g}, up to 1")
        first, stop = 0, len(timesteps)
        if self.start > 0.0:
            left = sum(t < _time(self.start, times) for t in timesteps)
            if order == 2 and left % 2 == 0:  # never in the middle of a step
                left += 1
            first = max(0, len(timesteps) - left)
        if self.end < 1.0:
            stop = sum(t >= _time(self.end, times) for t in timesteps)
        if first >= stop:
            allowed = f"one between which and a start of {self.start:g} there is a step, or more "
            raise InvalidRequest("end", self.end, f"{allowed}than {len(timesteps)} steps")
        return first, stop


WHOLE: Final = SchedulePart()


def _time(share: float, times: int) -> int:
    return round(times - share * times)
