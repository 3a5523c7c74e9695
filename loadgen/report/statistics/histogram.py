"""Times in a High Dynamic Range histogram: small, of fixed size, exact to 0.1%."""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import Final

from hdrh.histogram import HdrHistogram

MICROSECONDS: Final = 1_000_000
LONGEST_SECONDS: Final = 24 * 3600
"""Anything longer counts as this long."""
SIGNIFICANT_DIGITS: Final = 3


class TimeHistogram:
    """Seconds in, seconds out; kept as microseconds."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(1, LONGEST_SECONDS * MICROSECONDS, SIGNIFICANT_DIGITS)
        for value in seconds:
            self.record(value)

    def __len__(self) -> int:
        return int(self._counts.total_count)

    def __repr__(self) -> str:
        return f"<TimeHistogram of {len(self)}, max {self.max:.6g} s>"

    def record(self, seconds: float) -> None:
        """A negative time, which a clock may produce, counts as none."""
        clipped = min(max(seconds, 0.0), LONGEST_SECONDS)
        self._counts.record_value(round(clipped * MICROSECONDS))

    @property
    def max(self) -> float:
        """To the microsecond."""
        return float(self._counts.max_value) / MICROSECONDS

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """For each of `percents` (0 to 100) the smallest time that so many of all values do not
        exceed, at most 0.1% too high. Raises `ValueError` if nothing was recorded."""
        if not len(self):
            raise ValueError("no times were recorded")
        ranks = [self._exact_rank(percent) for percent in percents]
        found: dict[float, int] = self._counts.get_percentile_to_value_dict(ranks)
        return [min(found[rank] / MICROSECONDS, self.max) for rank in ranks]

    def _exact_rank(self, percent: float) -> float:
        """The library rounds a rank to the nearest, which says for 14 of 16 values that 90% are
        below; asked for the percentage of a whole rank, it finds just that."""
        count = len(self)
        return 100.0 * max(1, ceil(percent * count / 100.0)) / count

    def counts(self) -> Iterator[tuple[float, int]]:
        """(seconds, how many) of every recorded value, ascending, to 0.1%."""
        for item in self._counts.get_recorded_iterator():
            yield (
                min(item.value_iterated_to / MICROSECONDS, self.max),
                int(item.count_added_in_this_iter_step),
            )
