"""All processes that hold one component: when one of them would be done with more. Pure."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from math import inf
from typing import Final, NamedTuple

from shared.policy.batch_key import ShapeKey
from shared.policy.release.jobs import Stage
from shared.policy.release.load import ProcessLoad, left
from shared.policy.release.room import HORIZON, Room
from shared.policy.release.timeline import EPSILON, UNSEARCHED, Fit, Search, State, Timeline
from shared.policy.step_work import StepWork

TRIES: Final = 8
"""Processes that are asked whether they have room for a row, the least loaded first."""
FADING: Final = 2.0
"""Seconds in which an idle process may have become twice as quick as it was measured to be,"""
FADED: Final = 4.0
"""and times as quick that it may be at most."""


class Placement(NamedTuple):
    """When all rows of a stage run, in seconds from now: the first begins, and the last ends."""

    begin: float
    end: float


Kind = tuple[StepWork, int, ShapeKey, float, float]
"""What the place of a row depends on: its steps, when it can begin, and how early it has to be."""


class _Promise(NamedTuple):
    """One row's. `before`: how its process was promised."""

    number: int
    fit: Fit
    before: State
    searches: dict[int, Search]


class BatchPool:
    """Processes that batch rows. Their timelines are made when they are asked for, and what was
    found out about rows of one kind is remembered until something else is promised."""

    def __init__(self, loads: Sequence[ProcessLoad], now: float) -> None:
        self._loads = loads
        self._now = now
        self._timelines: dict[int, Timeline] = {}
        self._by_load = sorted(
            [
                (left(load, now) if load.seconds else 0.0, number)
                for number, load in enumerate(loads)
            ]
        )
        """Before anything was promised; a sorted list is a heap, too."""
        self._least = list(self._by_load)
        self._given: Counter[int] = Counter()
        """Rows by process that begin soon, of those that were promised a time."""
        self._room: Room | None = None
        self._kinds: dict[Kind, int] = {}
        self._searches: defaultdict[int, dict[int, Search]] = defaultdict(dict)
        """By process and kind."""
        self._refused: dict[tuple[int, int], float] = {}
        """So many rows of a kind have no places if they are due earlier than that."""
        self._step: dict[StepWork, float] = {}
        """Of one row, in the quickest process that is asked first, and"""
        self._full: dict[StepWork, float] = {}
        """its share of a full one, in the least loaded one."""

    def __repr__(self) -> str:
        return f"<BatchPool of {len(self._loads)}, {len(self._timelines)} of them looked at>"

    @cached_property
    def known(self) -> bool:
        """Whether anybody knows how long a step takes."""
        return any(load.cost.known for load in self._loads)

    @cached_property
    def doubt(self) -> float:
        """Relative error of what is predicted, by the surest of those that are asked first."""
        return min(load.cost.doubt for load in self._asked_first)

    def alone(self, stage: Stage) -> float:
        """Seconds of a row that has a process to itself, by the quickest of those that are asked
        first: one that takes itself to be slow, and maybe wrongly, keeps nobody out."""
        step = self._step.get(stage.work)
        if step is None:
            step = min(load.cost.predict(stage.work) for load in self._asked_first)
            self._step[stage.work] = step
        return stage.steps * step

    def share(self, stage: Stage) -> float:
        """Seconds of one process that all rows take, if steps are as full as they may be."""
        full = self._full.get(stage.work)
        if full is None:
            first = self._first
            seconds = first.cost.predict(stage.work.scaled(first.max_rows))
            full = self._full[stage.work] = seconds / first.max_rows
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
        return self._first.max_rows

    @property
    def _first(self) -> ProcessLoad:
        """The process that was least loaded before anything was promised."""
        return self._asked_first[0]

    @cached_property
    def _asked_first(self) -> list[ProcessLoad]:
        """The least loaded ones, before anything was promised."""
        return [self._loads[number] for _, number in self._by_load[:TRIES]]

    @cached_property
    def _idle(self) -> list[tuple[int, float]]:
        """Processes that have nothing in hand, and since when."""
        return [
            (number, load.idle_since)
            for number, load in enumerate(self._loads)
            if load.idle_since is not None
        ]

    def place(
        self, stage: Stage, ready: float, due: float, spare: int = 0, early: float = 0.0
    ) -> Placement | None:
        """Promise that all rows of `stage`, which can begin in `ready` seconds, are done in `due`
        seconds (infinite: as soon as they can be): each by the least loaded process that makes
        nobody late by it. None: not all can be, or there would be no room for `spare` rows more,
        and nothing is promised. `early`: steps by which rows that wait are done before `due`."""
        kind, count = self._kind(stage, ready, early), stage.rows + spare
        if due + EPSILON < self._refused.get((kind, count), 0.0):
            return None
        promises: list[_Promise] = []
        for _ in range(count):
            found, least = self._fitting(stage, kind, ready, due, early)
            if found is None:
                if promises:  # others are asked first from now on
                    self._refused.clear()
                    self._take_back(promises)
                    least = due + 2.0 * EPSILON
                self._refused[kind, count] = least
                return None
            promises.append(self._promise(stage, *found, due))
        self._refused.clear()
        self._take_back(promises[stage.rows :])
        kept = promises[: stage.rows]
        for promise in kept:
            self._given[promise.number] += promise.fit.begin <= ready + HORIZON
        return Placement(min(p.fit.begin for p in kept), max(p.fit.end for p in kept))

    def try_out(self, stage: Stage, ready: float, rest: float, due: float) -> Placement | None:
        """Promise all rows of `stage` to a process that is idle, even if they would be late by what
        it was measured to take when it had something to do last: the longer ago that is, the less
        it says. It has nothing better to do, and would never learn that its steps have become
        quicker. `rest`: seconds from their end until the job is finished, in `due` seconds. None:
        no process is idle, or it would have to be too much quicker."""
        for number, since in self._idle:
            promised = self._timelines.get(number)
            if promised is not None and promised.seconds > 0.0:
                continue
            load = self._loads[number]
            quicker = min(FADED, 1.0 + max(0.0, self._now - since) / FADING)
            seconds = stage.steps * load.cost.predict(stage.work.scaled(stage.rows))
            if stage.rows <= load.max_rows and ready + seconds + rest <= quicker * due:
                return self._give(number, stage, ready)
        return None

    def _give(self, number: int, stage: Stage, ready: float) -> Placement | None:
        """All rows of `stage` to that process, as soon as they can be there."""
        self._refused.clear()
        self._least = [each for each in self._least if each[1] != number]
        heapq.heapify(self._least)
        fits: list[Fit] = []
        for _ in range(stage.rows):
            fit = self._timeline(number).fit(stage, ready, inf)
            if fit is not None:
                fits.append(self._promise(stage, number, fit, inf).fit)
        self._given[number] += len(fits)
        return Placement(ready, max(fit.end for fit in fits)) if fits else None

    def soonest(self, stage: Stage, ready: float) -> float:
        """When one of the rows would be done, by the least loaded process, if it had to make nobody
        late."""
        _, number = self._least[0]
        fit = self._search(number, stage, self._kind(stage, ready, 0.0), ready, inf, 0.0).fit
        return ready + self.alone(stage) if fit is None else fit.end

    def _kind(self, stage: Stage, ready: float, early: float) -> int:
        kind = stage.work, stage.steps, stage.shape, ready, early
        return self._kinds.setdefault(kind, len(self._kinds))

    def _promise(self, stage: Stage, number: int, fit: Fit, due: float) -> _Promise:
        timeline = self._timelines[number]
        promise = _Promise(number, fit, timeline.state(), self._searches[number])
        timeline.place(stage, fit, fit.end if due == inf else due)
        self._searches[number] = {}
        heapq.heappush(self._least, (timeline.seconds, number))
        return promise

    def _take_back(self, promises: Sequence[_Promise]) -> None:
        """The last ones. Processes keep their places in the heap, which only say who is asked
        first."""
        for number, _, before, searches in reversed(promises):
            self._timelines[number].restore(before)
            self._searches[number] = searches

    def _fitting(
        self, stage: Stage, kind: int, ready: float, due: float, early: float
    ) -> tuple[tuple[int, Fit] | None, float]:
        """The process, which is taken from the heap, and the place there; or None, and the least
        `due` for which there may be one."""
        refused: list[tuple[float, int]] = []
        found: tuple[int, Fit] | None = None
        least = inf
        while self._least and found is None and len(refused) < TRIES:
            each = heapq.heappop(self._least)
            search = self._search(each[1], stage, kind, ready, due, early)
            if search.fit is None or search.due > due + EPSILON:
                refused.append(each)
                least = min(least, search.due)
            else:
                found = each[1], search.fit
        for each in refused:
            heapq.heappush(self._least, each)
        return found, least

    def _search(
        self, number: int, stage: Stage, kind: int, ready: float, due: float, early: float
    ) -> Search:
        searches = self._searches[number]
        before = searches.get(kind, UNSEARCHED)
        if before.fit is not None or before.due > due + EPSILON:
            return before
        found = self._timeline(number).search(stage, ready, due, early, before)
        searches[kind] = found
        return found

    def take_room(self, stage: Stage) -> bool:
        """Whether a process has room for a row that has no time to be finished by, or will have
        soon; then it is taken."""
        if self._room is None:
            self._room = Room(self._loads, self._now, self._by_load, self._given)
        return self._room.take(self.share(stage) / stage.rows)

    def _timeline(self, number: int) -> Timeline:
        found = self._timelines.get(number)
        if found is None:
            found = self._timelines[number] = Timeline(self._loads[number], self._now)
        return found
