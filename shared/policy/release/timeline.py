"""What one process that batches has promised, and whether there is room for one row more. Pure.

All its rows take each step together, so time is counted in steps: a row takes part in the steps
from `start` to `stop`, and makes each of them longer by its `unit` seconds. A step that any row of
a shape takes part in costs `fixed` seconds for that shape. So a row more delays another one by its
unit for every step that they share (`ends` of `reported_load.py`, solved for one row more).
"""

from math import inf
from typing import Final, NamedTuple

from shared.policy.batch_key import ShapeKey
from shared.policy.release.jobs import Stage
from shared.policy.release.load import ProcessLoad
from shared.policy.reported_load import ends
from shared.policy.step_work import StepWork

HOPELESS: Final = 2.0
"""Times as long as it has, that a row takes alone, from which on it holds up nobody."""
EPSILON: Final = 1e-9
"""Seconds that are no delay."""


class Slot(NamedTuple):
    """A row that is promised a time. Seconds are those since the process reported its load."""

    start: int
    stop: int
    unit: float
    shape: ShapeKey
    end: float
    due: float


class Span(NamedTuple):
    """The steps in which rows of a shape take part."""

    start: int
    stop: int
    fixed: float


State = tuple[tuple[Slot, ...], dict[ShapeKey, Span]]


class Fit(NamedTuple):
    """One row more: from which step on, and from when to when, in seconds from now."""

    start: int
    unit: float
    fixed: float
    begin: float
    end: float


class Search(NamedTuple):
    """How far places for one kind of row were looked at. `due`: the least, in seconds from now, for
    which there may be one. `fit`: the first place that makes nobody late, if it was come to."""

    due: float
    fit: Fit | None
    looked: int
    """At so many of the steps at which a row may begin."""


UNSEARCHED: Final = Search(0.0, None, 0)


class Reported:
    """The rows of `load` that have to be finished at some time."""

    def __init__(self, load: ProcessLoad) -> None:
        self._load = load
        self._known: dict[StepWork, tuple[float, float]] = {}
        self.slots: tuple[Slot, ...] = ()
        self.spans: dict[ShapeKey, Span] = {}
        for row, end in ends([row for row in load.rows if row.due is not None], load.cost):
            fixed, unit = self.split(row.work)
            due = inf if row.due is None else row.due - load.at
            slot = Slot(0, row.steps_left, unit, row.shape, end, due)
            self.slots += (slot,)
            self.spans[row.shape] = _with(self.spans.get(row.shape), slot, fixed)
        self.yielding = max(0, load.count - len(self.slots))
        """Rows that step aside, but have places."""
        works = {row.shape: row.work for row in load.rows}
        self.step = sum(self.split(work)[0] for work in works.values())
        self.step += sum(self.split(row.work)[1] for row in load.rows)
        self.step = min(self.step, load.step_seconds)
        """Seconds of the running step."""

    def __repr__(self) -> str:
        return f"<Reported {len(self.slots)} rows of {self._load.process}>"

    def split(self, work: StepWork) -> tuple[float, float]:
        """Seconds of a step of `work`: what it pays once, and what it pays for the work."""
        found = self._known.get(work)
        if found is None:
            once = self._load.cost.predict(work)
            unit = max(0.0, self._load.cost.predict(work + work) - once)
            found = self._known[work] = max(0.0, once - unit), unit
        return found


def reported(load: ProcessLoad) -> Reported:
    """Computed once for each report of a process."""
    found = load.memo.get(Reported)
    if not isinstance(found, Reported):
        found = load.memo[Reported] = Reported(load)
    return found


class Timeline:
    """Of what a process reported, as it is `now`, and of what it is promised since."""

    __slots__ = ("_elapsed", "_first", "_load", "_reported", "_slots", "_spans", "_starts")

    def __init__(self, load: ProcessLoad, now: float) -> None:
        self._load = load
        self._reported = reported(load)
        self._slots, self._spans = self._reported.slots, self._reported.spans
        self._starts: list[tuple[int, float]] | None = None
        self._elapsed = max(0.0, now - load.at)
        step = self._reported.step
        self._first = int(self._elapsed / step) if step > 0.0 else 0
        """The step that runs now."""

    def __repr__(self) -> str:
        return f"<Timeline {len(self._slots)}/{self._load.max_rows} for {self.seconds:.2f} s>"

    @property
    def seconds(self) -> float:
        """Until all its slots are over."""
        last = max((slot.end for slot in self._slots), default=0.0)
        return max(0.0, last - self._elapsed)

    def fit(self, stage: Stage, ready: float, due: float, spare: float = 0.0) -> Fit | None:
        """Where a row of `stage`, which can begin in `ready` seconds, is done first without making
        anybody late; None: it would be later than `due` everywhere. One that has to wait until
        somebody leaves is done `spare` steps before that: how far the running step is, nobody
        tells."""
        found = self.search(stage, ready, due, spare, UNSEARCHED)
        return None if found.due > due + EPSILON else found.fit

    def search(
        self, stage: Stage, ready: float, due: float, spare: float, before: Search
    ) -> Search:
        """As `fit`, going on from where an earlier search of the same row had to end."""
        if before.fit is not None or before.due > due + EPSILON:
            return before
        fixed, unit = self._reported.split(stage.work)
        elapsed = self._elapsed
        soonest = elapsed + ready + self._reported.step
        starts = self._begins()
        for looked in range(before.looked, len(starts)):
            start, at = starts[looked]
            end, possible = self._joined(stage, start, unit, fixed)
            begin = max(at, soonest)
            waits = spare * self._reported.step if start > self._first else 0.0
            least = begin + end + waits - elapsed
            if possible:
                fit = Fit(start, unit, fixed, begin - elapsed, begin + end - elapsed)
                return Search(least, fit, looked)
            if least > due + EPSILON:
                return Search(least, None, looked)
        return Search(inf, None, len(starts))

    def place(self, stage: Stage, fit: Fit, due: float) -> None:
        start, stop = fit.start, fit.start + stage.steps
        same = self._stop_of(stage.shape, start)
        slot = Slot(
            start, stop, fit.unit, stage.shape, fit.end + self._elapsed, due + self._elapsed
        )
        unit, fixed = fit.unit, fit.fixed
        moved = [
            Slot(
                old.start,
                old.stop,
                old.unit,
                old.shape,
                old.end + _delay(old.stop, start, stop, same, fixed, unit),
                old.due,
            )
            if old.stop > start
            else old
            for old in self._slots
        ]
        self._slots, self._starts = (*moved, slot), None
        span = _with(self._spans.get(stage.shape), slot, fit.fixed)
        self._spans = {**self._spans, stage.shape: span}

    def state(self) -> State:
        """To go back to by `restore`."""
        return self._slots, self._spans

    def restore(self, state: State) -> None:
        self._slots, self._spans = state
        self._starts = None

    def _begins(self) -> list[tuple[int, float]]:
        """Steps at which somebody leaves, the next one first, each with the seconds until it."""
        if self._starts is None:
            first = self._first
            steps = [first, *sorted({slot.stop for slot in self._slots if slot.stop > first})]
            self._starts = [(step, self._at(step)) for step in steps]
        return self._starts

    def _at(self, step: int) -> float:
        """Seconds until so many steps are taken."""
        if step == self._first:
            return self._elapsed
        seconds = 0.0
        for start, stop, unit, *_ in self._slots:
            if start < step:
                seconds += unit * ((stop if stop < step else step) - start)
        for start, stop, fixed in self._spans.values():
            if start < step:
                seconds += fixed * ((stop if stop < step else step) - start)
        return seconds

    def _joined(self, stage: Stage, start: int, unit: float, fixed: float) -> tuple[float, bool]:
        """Seconds of the steps of one row more from `start` on; and whether there is room for it,
        no step becomes too long, and nobody late who is not, nor later who is."""
        stop, same = start + stage.steps, self._stop_of(stage.shape, start)
        beside, longest, possible = 0, unit + fixed, True
        seconds = unit * stage.steps + fixed * max(0, stop - max(start, same))
        for slot in self._slots:
            begins, leaves, each, _, end, due = slot
            if leaves <= start:
                continue
            last = leaves if leaves < stop else stop
            if begins < stop:
                beside += 1
                longest += each
                seconds += each * (last - (begins if begins > start else start))
            if possible and due < inf:
                delay = unit * (last - start) + (fixed * (last - same) if last > same else 0.0)
                possible = end + delay <= due + EPSILON or _is_hopeless(slot)
        for begins, leaves, once in self._spans.values():
            if leaves > start and begins < stop:
                last = leaves if leaves < stop else stop
                seconds += once * (last - (begins if begins > start else start))
        if start == self._first:
            beside += self._reported.yielding
        free = beside < self._load.max_rows
        short = not beside or longest <= self._load.max_step_seconds
        return seconds, possible and free and short

    def _stop_of(self, shape: ShapeKey, start: int) -> int:
        """The step from which on, after `start`, nobody else pays what `shape` pays once."""
        span = self._spans.get(shape)
        return start if span is None or span.start > start else max(start, span.stop)


def _is_hopeless(slot: Slot) -> bool:
    """It cannot be in time any more, whoever makes room for it, and not by a mistake either: who is
    taken to be hopeless, and is not, is made late by those that are let in beside it."""
    return not slot.start and slot.stop * slot.unit > HOPELESS * slot.due


def _delay(last: int, start: int, stop: int, same: int, fixed: float, unit: float) -> float:
    """Seconds by which a row that takes part from `start` to `stop` delays one that takes part
    until `last`, after `start`; from step `same` on nobody else pays `fixed`."""
    last = min(last, stop)
    return unit * (last - start) + (fixed * (last - same) if last > same else 0.0)


def _with(span: Span | None, slot: Slot, fixed: float) -> Span:
    if span is None:
        return Span(slot.start, slot.stop, fixed)
    return Span(min(span.start, slot.start), max(span.stop, slot.stop), fixed)
