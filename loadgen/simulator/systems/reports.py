"""What processes report to planners, as `shared/worker/load_publisher.py` does: each looks every
30 ms at what it has in hand, and tells it if it changed, or nothing was told for long.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, sqrt
from typing import Final, Protocol

from loadgen.simulator.cluster.batcher import Batcher
from loadgen.simulator.cluster.clock import Clock
from loadgen.simulator.cluster.stepper import Stepper
from shared.policy.cautious_cost import CautiousCost
from shared.policy.deadlines import due, hurried
from shared.policy.release.jobs import Component, rows_of_size
from shared.policy.release.load import ProcessLoad, RowInHand, with_idleness
from shared.policy.release.pace import LOOK_SECONDS, QUIET_SECONDS, differs, telling_change
from shared.policy.reported_load import ends, seconds_in_hand
from shared.policy.step_work import StepWork

SPREAD: Final = (sqrt(5.0) - 1.0) / 2.0
"""Processes look at different times: each so much of `LOOK_SECONDS` after the one before it."""
HAIR: Final = 1e-9
"""Seconds that are rounding."""


class Source(Protocol):
    """A process of a component."""

    def stands(self, now: float) -> ProcessLoad: ...

    def told(self) -> None:
        """Planners have heard how it stands."""
        ...


@dataclass(frozen=True, slots=True)
class Each:
    """Every node takes so long (`StepCost`)."""

    seconds: float
    known: bool = True
    doubt: float = 0.0
    slowness: float = 1.0

    def predict(self, work: StepWork) -> float:
        return self.seconds * work.tokens

    def least(self, work: StepWork) -> float:
        return self.predict(work)

    def untried(self, work: StepWork) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class BatcherSource:
    """Text encoders and autoencoders: what one node takes, and how many they have
    (`shared/worker/batched_compute.py`)."""

    name: str
    component: Component
    batcher: Batcher

    def stands(self, now: float) -> ProcessLoad:
        count, each = len(self.batcher), self.batcher.each
        return ProcessLoad(
            self.name, self.component, Each(each), now, seconds=count * each, count=count
        )

    def told(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class StepperSource:
    """Denoisers: their rows, and what their steps take now (`services/denoiser/load.py`)."""

    name: str
    component: Component
    stepper: Stepper

    def stands(self, now: float) -> ProcessLoad:
        cost, limits = self.stepper.cost, self.stepper.limits
        rows = hurried(self.stepper.views(), cost)
        return ProcessLoad(
            self.name,
            self.component,
            CautiousCost(cost),
            now,
            [
                RowInHand(
                    row.steps_left,
                    row.work,
                    rows_of_size(row.shape.height, row.shape.width),
                    due(row, end, now),
                    row.job_id,
                )
                for row, end in ends(rows, cost)
            ],
            seconds_in_hand(rows, cost),
            len(rows),
            limits.max_rows,
            limits.max_step_seconds,
            cost.longest,
        )

    def told(self) -> None:
        for job in self.stepper.jobs():
            job.reported = True


class Reporter:
    """The `number`-th process. `heard` is called when it has told something."""

    def __init__(self, clock: Clock, number: int, source: Source) -> None:
        self._clock, self._source = clock, source
        self._offset = LOOK_SECONDS * (number * SPREAD % 1.0)
        self._next: float | None = None
        """When it looks again; nothing changes until then but the steps that are left."""
        [self.last] = with_idleness((source.stands(clock.now),), ())
        self.heard: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Reporter of {self.last.process} at {self.last.at:.2f}>"

    def wake(self) -> None:
        """Something came or left: it is seen at the next look."""
        self._look_after(self._clock.now)

    def _look_after(self, time: float) -> None:
        looks = floor((time - self._offset) / LOOK_SECONDS + HAIR) + 1
        at = self._offset + looks * LOOK_SECONDS
        if self._next is None or at < self._next:
            self._next = at
            self._clock.at(at, self._look, at)

    def _look(self, planned: float) -> None:
        if planned != self._next:
            return  # it looked earlier
        self._next = None
        now = self._clock.now
        found = self._source.stands(now)
        quiet = now - self.last.at >= QUIET_SECONDS - HAIR
        if quiet or differs((self.last,), (found,)):
            [self.last] = with_idleness((found,), (self.last,))
            self._source.told()
            self.heard()
        if found.count or self.last.count:
            told = self.last
            until = told.at + min(QUIET_SECONDS, telling_change(told)) - LOOK_SECONDS
            self._look_after(max(now, until))
