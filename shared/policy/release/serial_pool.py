"""All processes of a component that compute one node after another: whether they are done with more
in time. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import inf

from shared.policy.release.jobs import Stage
from shared.policy.release.load import ProcessLoad, left
from shared.policy.step_work import StepWork


class SerialPool:
    """Processes that compute one node after another, in order of deadlines. What is promised fits
    if for no deadline there is more to do until then than there are processes (the processor demand
    criterion, Baruah, Rosier & Howell 1990)."""

    def __init__(self, loads: Sequence[ProcessLoad], now: float) -> None:
        self._processes = len(loads)
        ahead = [left(load, now) if load.seconds else 0.0 for load in loads]
        self._cost = loads[ahead.index(min(ahead))].cost
        self._ahead = sum(ahead)
        self._one: StepWork | None = None
        self._one_seconds = 0.0
        """Of the node that was asked for last: mostly, all are alike."""
        self._due: list[tuple[float, float]] = []
        self._total = self._ahead
        """What is ahead, and promised."""
        self._spare = inf
        """Seconds that nothing promised has less of, until it is due; there may be more."""
        self._prefixes: _Prefixes | None = None

    def __repr__(self) -> str:
        return f"<SerialPool of {self._processes}, {len(self._due)} promised>"

    def seconds(self, stage: Stage) -> float:
        """Of one row's nodes."""
        if stage.work is not self._one:
            self._one, self._one_seconds = stage.work, self._cost.predict(stage.work)
        return stage.steps * self._one_seconds

    def end(self, stage: Stage) -> float:
        """When the first of them would be done if they came now."""
        return self._ahead / self._processes + self.seconds(stage)

    def fits(self, stage: Stage, due: float) -> bool:
        """Whether all that is promised, and `stage` in `due` seconds, can be done in time."""
        more = stage.rows * self.seconds(stage)
        if more <= self._spare and self._total + more <= self._processes * due:
            return True  # even if all that is promised went before it
        if self._prefixes is None:
            self._prefixes = _Prefixes(self._due, self._ahead, self._processes)
            self._spare = self._prefixes.least
        before, spare = self._prefixes.at(due)
        return before + more <= self._processes * due and more <= spare

    def place(self, stage: Stage, due: float) -> None:
        more = stage.rows * self.seconds(stage)
        self._due.append((due, more))
        self._total += more
        self._spare = min(self._spare - more, self._processes * due - self._total)
        self._prefixes = None


class _Prefixes:
    """What `processes` have to do until each deadline: (deadline, seconds) are `promised`, and
    `ahead` seconds go before."""

    def __init__(self, promised: list[tuple[float, float]], ahead: float, processes: int) -> None:
        promised.sort()  # in place: the next time it is nearly done
        self._dues = [due for due, _ in promised]
        self._until = list(accumulate((seconds for _, seconds in promised), initial=ahead))
        slack = [
            processes * due - until for due, until in zip(self._dues, self._until[1:], strict=True)
        ]
        self._slack = list(accumulate(reversed(slack), min, initial=inf))[::-1]
        """The least of all deadlines from one on."""

    def __repr__(self) -> str:
        return f"<_Prefixes of {len(self._dues)}>"

    @property
    def least(self) -> float:
        return self._slack[0]

    def at(self, due: float) -> tuple[float, float]:
        """Seconds of work until `due`, and the least that is to spare until any later deadline."""
        number = bisect_right(self._dues, due)
        return self._until[number], self._slack[number]
