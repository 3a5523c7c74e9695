"""What one process that batches has promised, and whether there is room for one row more. Pure.

All its rows take each step together, so time is counted in steps: a row takes part in the steps
from `start` to `stop`, and makes each of them longer by its `unit` seconds. A step that any row of
a shape takes part in costs `fixed` seconds for that shape. So a row more delays another one by its
unit for every step that they share (`ends` of `reported_load.py`, solved for one row more).
"""

from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from shared.policy.batch_key import ShapeKey
from shared.policy.release.jobs import Stage
from shared.policy.release.load import ProcessLoad
from shared.policy.reported_load import ends
from shared.policy.step_work import StepWork

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


@dataclass(frozen=True, slots=True)
class Fit:
    """One row more: from which step on, and from when to when, in seconds from now."""

    start: int
    unit: float
    fixed: float
    begin: float
    end: float


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

    __slots__ = ("_elapsed", "_first", "_load", "_reported", "_slots", "_spans")

    def __init__(self, load: ProcessLoad, now: float) -> None:
        self._load = load
        self._reported = reported(load)
        self._slots, self._spans = self._reported.slots, self._reported.spans
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
        fixed, unit = self._reported.split(stage.work)
        elapsed = self._elapsed
        soonest = elapsed + ready + self._reported.step
        for start in self._starts():
            end, possible = self._joined(stage, start, unit, fixed)
            begin = max(self._at(start), soonest)
            waits = spare * self._reported.step if start > self._first else 0.0
            if begin + end + waits > due + elapsed + EPSILON:
                return None
            if possible:
                return Fit(start, unit, fixed, begin - elapsed, begin + end - elapsed)
        return None

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
        self._slots = (*moved, slot)
        span = _with(self._spans.get(stage.shape), slot, fit.fixed)
        self._spans = {**self._spans, stage.shape: span}

    def state(self) -> State:
        """To go back to by `restore`."""
        return self._slots, self._spans

    def restore(self, state: State) -> None:
        self._slots, self._spans = state

    def _starts(self) -> list[int]:
        """Steps at which somebody leaves, the next one first."""
        first = self._first
        return [first, *sorted({slot.stop for slot in self._slots if slot.stop > first})]

    def _at(self, step: int) -> float:
        """Seconds until so many steps are taken."""
        if step == self._first:
            return self._elapsed
        seconds = sum(
            slot.unit * (min(slot.stop, step) - slot.start)
            for slot in self._slots
            if slot.start < step
        )
        return seconds + sum(
            span.fixed * (min(span.stop, step) - span.start)
            for span in self._spans.values()
            if span.start < step
        )

    def _joined(self, stage: Stage, start: int, unit: float, fixed: float) -> tuple[float, bool]:
        """Seconds of the steps of one row more from `start` on; and whether there is room for it,
        no step becomes too long, and nobody late who is not, nor later who is."""
        stop, same = start + stage.steps, self._stop_of(stage.shape, start)
        beside, longest, possible = 0, unit + fixed, True
        seconds = unit * stage.steps + fixed * max(0, stop - max(start, same))
        for slot in self._slots:
            if slot.stop <= start:
                continue
            if slot.start < stop:
                beside += 1
                longest += slot.unit
                seconds += slot.unit * (min(slot.stop, stop) - max(slot.start, start))
            if possible and slot.due < inf:
                delay = _delay(slot.stop, start, stop, same, fixed, unit)
                possible = slot.end + delay <= slot.due + EPSILON or _is_hopeless(slot)
        for span in self._spans.values():
            if span.stop > start and span.start < stop:
                seconds += span.fixed * (min(span.stop, stop) - max(span.start, start))
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
    """It cannot be in time any more, whoever makes room for it."""
    return not slot.start and slot.stop * slot.unit > slot.due


def _delay(last: int, start: int, stop: int, same: int, fixed: float, unit: float) -> float:
    """Seconds by which a row that takes part from `start` to `stop` delays one that takes part
    until `last`, after `start`; from step `same` on nobody else pays `fixed`."""
    last = min(last, stop)
    return unit * (last - start) + (fixed * (last - same) if last > same else 0.0)


def _with(span: Span | None, slot: Slot, fixed: float) -> Span:
    if span is None:
        return Span(slot.start, slot.stop, fixed)
    return Span(min(span.start, slot.start), max(span.stop, slot.stop), fixed)
