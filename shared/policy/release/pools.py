"""All processes that hold one component: when one of them would be done with more. Pure."""

import heapq
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, cast

from shared.policy.release.jobs import Stage
from shared.policy.release.load import ProcessLoad
from shared.policy.release.timeline import Fit, State, Timeline
from shared.policy.reported_load import ends

TRIES: Final = 8
"""Processes that are asked whether they have room for a row, the least loaded first."""
HORIZON: Final = 0.5
"""Seconds before a process has room at which it is given the next job."""


@dataclass(frozen=True, slots=True)
class Placement:
    """When all rows of a stage run, in seconds from now: the first begins, and the last ends."""

    begin: float
    end: float


class BatchPool:
    """Processes that batch rows. Their timelines are made when they are asked for."""

    def __init__(self, loads: Sequence[ProcessLoad], now: float) -> None:
        self._loads = loads
        self._now = now
        self._timelines: dict[int, Timeline] = {}
        self._least = [(_left(load, now), number) for number, load in enumerate(loads)]
        self._free = [_free(load, now) for load in loads]
        self._room = [each for each in self._least if self._free[each[1]] > 0]
        heapq.heapify(self._least)
        heapq.heapify(self._room)
        self.rows = sum(load.max_rows for load in loads)

    def __repr__(self) -> str:
        return f"<BatchPool of {len(self._loads)}, {len(self._room)} of them with room>"

    @property
    def known(self) -> bool:
        """Whether anybody knows how long a step takes."""
        return any(load.cost.known for load in self._loads)

    @property
    def doubt(self) -> float:
        """Relative error of what is predicted, by the least loaded process."""
        return self._loads[self._least[0][1]].cost.doubt

    def alone(self, stage: Stage) -> float:
        """Seconds of a row that has the least loaded process to itself."""
        return stage.steps * self._loads[self._least[0][1]].cost.predict(stage.work)

    def share(self, stage: Stage) -> float:
        """Seconds of one process that all rows take, if steps are as full as they may be."""
        load = self._loads[self._least[0][1]]
        full = load.cost.predict(stage.work.scaled(load.max_rows)) / load.max_rows
        return stage.rows * stage.steps * full

    def spread(self, seconds: float) -> float:
        """Of work that takes one process so long, by all of them."""
        return seconds / len(self._loads)

    def wait(self, seconds: float) -> float:
        """Until there is room, behind work of so many seconds of one process."""
        return HORIZON + self.spread(seconds)

    @property
    def width(self) -> int:
        """Rows that share a step at most."""
        return self._loads[self._least[0][1]].max_rows

    def place(
        self, stage: Stage, ready: float, due: float, spare: int = 0, early: float = 0.0
    ) -> Placement | None:
        """Promise that all rows of `stage`, which can begin in `ready` seconds, are done in `due`
        seconds (infinite: as soon as they can be): each by the least loaded process that makes
        nobody late by it. None: not all can be, or there would be no room for `spare` rows more,
        and nothing is promised. `early`: steps by which rows that wait are done before `due`."""
        fits: list[Fit] = []
        undo: list[tuple[int, State]] = []
        for _ in range(stage.rows + spare):
            found = self._fitting(stage, ready, due, early)
            if found is None:
                self._go_back(undo)
                return None
            number, fit = found
            timeline = self._timeline(number)
            undo.append((number, timeline.state()))
            timeline.place(stage, fit, fit.end if due == inf else due)
            heapq.heappush(self._least, (timeline.seconds, number))
            fits.append(fit)
        self._go_back(undo[stage.rows :])
        for (number, _), fit in zip(undo[: stage.rows], fits, strict=False):
            self._free[number] -= fit.begin <= ready + HORIZON
        return Placement(
            min(fit.begin for fit in fits[: stage.rows]), max(f.end for f in fits[: stage.rows])
        )

    def soonest(self, stage: Stage, ready: float) -> float:
        """When one of the rows would be done, by the least loaded process, if it had to make nobody
        late."""
        _, number = self._least[0]
        fit = self._timeline(number).fit(stage, ready, inf)
        return ready + self.alone(stage) if fit is None else fit.end

    def _go_back(self, undo: Sequence[tuple[int, State]]) -> None:
        """Take the last promises back. Processes keep their places in the heap, which only say who
        is asked first."""
        for number, state in reversed(undo):
            self._timeline(number).restore(state)

    def _fitting(
        self, stage: Stage, ready: float, due: float, early: float
    ) -> tuple[int, Fit] | None:
        """The process, which is taken from the heap, and the place there."""
        refused: list[tuple[float, int]] = []
        found: tuple[int, Fit] | None = None
        while self._least and found is None and len(refused) < TRIES:
            seconds, number = heapq.heappop(self._least)
            fit = self._timeline(number).fit(stage, ready, due, early)
            if fit is None:
                refused.append((seconds, number))
            else:
                found = number, fit
        for each in refused:
            heapq.heappush(self._least, each)
        return found

    def take_room(self, stage: Stage) -> bool:
        """Whether a process has room for a row that has no time to be finished by, or will have
        soon; then it is taken."""
        while self._room:
            seconds, number = self._room[0]
            if self._free[number] <= 0:
                heapq.heappop(self._room)
                continue
            self._free[number] -= 1
            more = self.share(stage) / stage.rows
            heapq.heapreplace(self._room, (seconds + more, number))
            return True
        return False

    def _timeline(self, number: int) -> Timeline:
        found = self._timelines.get(number)
        if found is None:
            found = self._timelines[number] = Timeline(self._loads[number], self._now)
        return found


class SerialPool:
    """Processes that compute one node after another, in order of deadlines. What is promised fits
    if for no deadline there is more to do until then than there are processes (the processor demand
    criterion, Baruah, Rosier & Howell 1990)."""

    def __init__(self, loads: Sequence[ProcessLoad], now: float) -> None:
        self._processes = len(loads)
        self._cost = min(loads, key=lambda load: _left(load, now)).cost
        self._ahead = sum(_left(load, now) for load in loads)
        self._due: list[tuple[float, float]] = []

    def __repr__(self) -> str:
        return f"<SerialPool of {self._processes}, {len(self._due)} promised>"

    def seconds(self, stage: Stage) -> float:
        """Of one row's nodes."""
        return stage.steps * self._cost.predict(stage.work)

    def end(self, stage: Stage) -> float:
        """When the first of them would be done if they came now."""
        return self._ahead / self._processes + self.seconds(stage)

    def fits(self, stage: Stage, due: float) -> bool:
        """Whether all that is promised, and `stage` in `due` seconds, can be done in time."""
        total = self._ahead + stage.rows * self.seconds(stage)
        total += sum(seconds for other, seconds in self._due if other <= due)
        if total > self._processes * due:
            return False
        for other, seconds in self._due:
            if other > due:
                total += seconds
                if total > self._processes * other:
                    return False
        return True

    def place(self, stage: Stage, due: float) -> None:
        insort(self._due, (due, stage.rows * self.seconds(stage)))


def _left(load: ProcessLoad, now: float) -> float:
    """Seconds until it has finished what it has in hand."""
    return max(0.0, load.seconds - max(0.0, now - load.at))


def _free(load: ProcessLoad, now: float) -> int:
    """Rows without a deadline that it may be given now, counting on those that are done within
    `HORIZON`. The last quarter of its places is left for rows that are promised a time; of these
    places rows that come early may take all but one."""
    kept = load.max_rows // 4
    soon = bisect_right(_ends(load), max(0.0, now - load.at) + HORIZON)
    early = min(soon, kept - 1 if kept else 1)
    return load.max_rows - kept - load.count + early


def _ends(load: ProcessLoad) -> Sequence[float]:
    """When each of its rows is finished, in order, in seconds since it reported them. Computed once
    for each report."""
    found = load.memo.get(_ends)
    if found is None:
        found = load.memo[_ends] = [end for _, end in ends(load.rows, load.cost)]
    return cast(Sequence[float], found)
