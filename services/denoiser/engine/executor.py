"""Taking one step of some rows, in whichever way, and learning what it cost."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final, Protocol

import torch

from services.denoiser.engine.events import Event, Failed
from services.denoiser.engine.slot import Slot
from services.denoiser.forward.predictors import (
    Interrupted,
    Predictor,
    StepTime,
    WholeNetwork,
    first_that_applies,
)
from services.denoiser.forward.step import Batch, step
from services.denoiser.rows.row import Row
from shared.models.contracts.network import Network
from shared.policy.batch_key import ShapeKey
from shared.policy.cost_model import CostModel
from shared.policy.step_work import StepWork, total

MAX_BATCHES: Final = 4
"""Shapes whose last batch is kept, with its concatenated embeddings."""


class Errand(Protocol):
    """Something that is computed on a network while no row needs it."""

    @property
    def work(self) -> StepWork:
        """How much that is."""
        ...

    def __call__(self, network: Network) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """How many steps, of how many rows together, and their seconds."""

    steps: int = 0
    rows: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Taken") -> "Taken":
        return Taken(self.steps + other.steps, self.rows + other.rows, self.seconds + other.seconds)


class StepExecutor:
    """For the thread of the step loop. `cost` and `taken` may be read by any."""

    def __init__(
        self,
        network: Network,
        cost: CostModel,
        predictors: Sequence[Predictor],
        about_to: Callable[[], object],
    ) -> None:
        """`predictors`: ways to take steps beside the whole network at once; the first that applies
        takes the step. `about_to` is called just before each step."""
        self._network, self._about_to = network, about_to
        self._predictors = (*predictors, WholeNetwork())
        self._batches: OrderedDict[ShapeKey, Batch] = OrderedDict()
        self.cost = cost
        self.taken = Taken()

    def advance(
        self, slots: Sequence[Slot], taking_turns: Collection[Row], lonely: bool
    ) -> list[Event]:
        """One step of `slots`. If it fails, each takes it alone: only the culprit fails then.
        `taking_turns`: all rows that do; `lonely`: there is nobody else, nor will be soon."""
        try:
            batch = self._batch(tuple(slot.row for slot in slots), taking_turns)
            predictor = first_that_applies(self._predictors, batch, self.cost, lonely)
            self._about_to()
            time = StepTime()
            started = perf_counter()
            stepped = step(self._network, batch, partial(predictor.predict, time=time))
            seconds = perf_counter() - started
        except Interrupted as interrupted:
            ready, failed = _sorted(interrupted, slots)
            return failed + (self.advance(ready, taking_turns, lonely) if ready else [])
        except Exception as error:
            if len(slots) == 1:
                return [Failed(slots[0].ticket, error)]
            each = (self.advance([slot], taking_turns, lonely) for slot in slots)
            return [event for events in each for event in events]
        if time.representative:
            self._learn(batch, seconds - time.waited)
        elif time.part is not None:
            self.cost = self.cost.observe(*time.part)
        self.taken += Taken(1, len(slots), seconds)
        events: list[Event] = []
        for i, slot in enumerate(slots):
            events += slot.take(stepped, i, seconds)
            for one in self._predictors:
                one.stepped(slot.row, self._network)
        return events

    def run(self, errand: Errand) -> torch.Tensor:
        """What `errand` asks of the network as it was loaded. What it takes is learnt: who helps
        others, and has no row, would believe for ever what it was like when it had."""
        self._settle(())
        started = perf_counter()
        answer = errand(self._network)
        self.cost = self.cost.observe(errand.work, perf_counter() - started)
        return answer

    def rest(self) -> None:
        """There are no rows."""
        self._batches.clear()
        self.cost = self.cost.rested()

    def end(self) -> None:
        """Leave the network as it was: it is not only this engine's."""
        self._settle(())

    def statistics(self) -> dict[str, float]:
        """What the predictors count. May be called by any thread."""
        return {name: n for each in self._predictors for name, n in each.statistics().items()}

    def _batch(self, rows: tuple[Row, ...], taking_turns: Collection[Row]) -> Batch:
        self._settle(taking_turns)
        shape = rows[0].shape_key
        batch = self._batches.pop(shape, None)
        if batch is None or not batch.still_is(rows):
            batch = Batch.of(rows, self._network)
            for predictor in self._predictors:
                predictor.batched(batch, self._network)
        self._batches[shape] = batch
        if len(self._batches) > MAX_BATCHES:
            self._batches.popitem(last=False)
        return batch

    def _settle(self, rows: Collection[Row]) -> None:
        for predictor in self._predictors:
            if predictor.settle(rows):
                self._batches.clear()

    def _learn(self, batch: Batch, seconds: float) -> None:
        """A step that was taken here alone, and of which the rows are not told yet, was `seconds`
        of work."""
        work = total(row.work for row in batch.rows)
        self.cost = self.cost.observe(work, seconds)
        for predictor in self._predictors:
            predictor.observe(batch, work, seconds)


def _sorted(interrupted: Interrupted, slots: Sequence[Slot]) -> tuple[list[Slot], list[Event]]:
    """Those of `slots` that were answered, and what became of those that failed; the others
    wait."""
    failed, late = interrupted.failed, interrupted.late
    events: list[Event] = [
        Failed(slot.ticket, failed[slot.row]) for slot in slots if slot.row in failed
    ]
    return [e for e in slots if e.row not in failed and e.row not in late], events
