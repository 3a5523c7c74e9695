"""Taking one step of some rows, in whichever way, and learning what it cost."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from services.denoiser.block_modes import choose_modes
from services.denoiser.cost import CostModel
from services.denoiser.entry import Slot
from services.denoiser.merging import Merging
from services.denoiser.outcomes import Event, Failed
from services.denoiser.row import Row
from services.denoiser.shape import ShapeKey
from services.denoiser.sharing import Half, Sharing
from services.denoiser.steering import LEAST_PATIENCE, PATIENCE_STEPS, Interrupted, Steering
from services.denoiser.step import Batch, Predict, predict, step
from services.denoiser.work import step_work, total
from shared.families.network import Network

MAX_BATCHES: Final = 4
"""Shapes whose last batch is kept, with its concatenated embeddings."""


@dataclass(frozen=True, slots=True)
class Taken:
    """How many steps, of how many rows together, and their seconds."""

    steps: int = 0
    rows: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Taken") -> "Taken":
        return Taken(self.steps + other.steps, self.rows + other.rows, self.seconds + other.seconds)


class StepExecutor:
    """For the thread of the step loop. `cost`, `taken` and what `steering` and `sharing` count may
    be read by any."""

    def __init__(
        self,
        network: Network,
        cost: CostModel,
        steering: Steering | None,
        sharing: Sharing | None,
        about_to: Callable[[], object],
    ) -> None:
        """`steering`: how ControlNets are asked; `sharing`: how other denoisers are. None: there
        are none. `about_to` is called just before each step."""
        self._network, self._about_to = network, about_to
        self._steering, self._sharing = steering, sharing
        self._merging = Merging(network)
        self._batches: OrderedDict[ShapeKey, Batch] = OrderedDict()
        self.cost = cost
        self.taken = Taken()
        self.halves = 0
        """Computed for others."""

    def advance(
        self, slots: Sequence[Slot], taking_turns: Collection[Row], lonely: bool
    ) -> list[Event]:
        """One step of `slots`. If it fails, each takes it alone: only the culprit fails then.
        `taking_turns`: all rows that do; `lonely`: there is nobody else, nor will be soon."""
        try:
            batch = self._batch(tuple(slot.row for slot in slots), taking_turns)
            choose_modes(batch.rows, self.cost)
            self._about_to()
            started, waited, shared = time.perf_counter(), self._waited(), self.shared
            stepped = step(self._network, batch, self._way(batch, lonely))
            seconds = time.perf_counter() - started
        except Interrupted as interrupted:
            ready, failed = _sorted(interrupted, slots)
            return failed + (self.advance(ready, taking_turns, lonely) if ready else [])
        except Exception as error:
            if len(slots) == 1:
                return [Failed(slots[0].ticket, error)]
            each = (self.advance([slot], taking_turns, lonely) for slot in slots)
            return [event for events in each for event in events]
        hindered = batch.bank is not None and any(row.computed < 1.0 for row in batch.rows)
        if self.shared == shared and not hindered:
            self._learn(batch, seconds - self._waited() + waited)
        self.taken += Taken(1, len(slots), seconds)
        events: list[Event] = []
        for i, slot in enumerate(slots):
            events += slot.take(stepped, i, seconds)
            if self._steering is not None:
                self._steering.ahead(slot.row, self._network.dtype)
        return events

    @torch.inference_mode()
    def answer(self, half: Half) -> torch.Tensor:
        """What another denoiser asked for, (1, C, H, W) on the CPU."""
        self._merging.settle(())
        device, dtype = self._network.device, self._network.dtype
        x, t = half.x.to(device, dtype), torch.tensor([half.t], device=device)
        out = self._network.predict(x, t, half.told.to(device, dtype)).cpu()
        self.halves += 1
        return out

    def rest(self) -> None:
        """There are no rows."""
        self._batches.clear()
        self.cost = self.cost.rested()

    def end(self) -> None:
        """Leave the network as it was: it is not only this engine's."""
        self._merging.settle(())

    @property
    def shared(self) -> int:
        """Steps that another denoiser took half of."""
        return 0 if self._sharing is None else self._sharing.steps

    def _waited(self) -> float:
        """Seconds that steps waited for ControlNets: no cost of the network's."""
        return 0.0 if self._steering is None else self._steering.waited

    def _way(self, batch: Batch, lonely: bool) -> Predict:
        """How the batch's answers are had: all here, or with ControlNets', or half of them from
        another denoiser."""
        seconds = self.cost.predict(total(step_work(row) for row in batch.rows))
        if self._steering is not None and any(row.steered is not None for row in batch.rows):
            return self._steering.predict(max(LEAST_PATIENCE, PATIENCE_STEPS * seconds))
        if self._sharing is not None and lonely and self.cost.known:
            return self._sharing.predict if self._sharing.pays(batch, seconds) else predict
        return predict

    def _batch(self, rows: tuple[Row, ...], taking_turns: Collection[Row]) -> Batch:
        shape = rows[0].shape_key
        batch = self._batches.pop(shape, None)
        self._merging.settle(taking_turns)
        merged = self._merging.merged
        if batch is None or not batch.still_is(rows, merged):
            batch = Batch.of(rows, self._network, merged)
            for row, uses in zip(rows, batch.adapters, strict=True):
                for adapter, _ in uses:
                    row.joined.setdefault(adapter.name, row.step)
        self._batches[shape] = batch
        if len(self._batches) > MAX_BATCHES:
            self._batches.popitem(last=False)
        return batch

    def _learn(self, batch: Batch, seconds: float) -> None:
        """A step that was taken here alone, and of which the rows are not told yet, was `seconds`
        of work."""
        work = total(step_work(row) for row in batch.rows)
        self.cost = self.cost.observe(work, seconds)
        self._merging.observe(work, seconds, batch.bank is not None)


def _sorted(interrupted: Interrupted, slots: Sequence[Slot]) -> tuple[list[Slot], list[Event]]:
    """Those of `slots` that were answered, and what became of those that failed; the others
    wait."""
    failed, late = interrupted.failed, interrupted.late
    events: list[Event] = [
        Failed(slot.ticket, failed[slot.row]) for slot in slots if slot.row in failed
    ]
    return [e for e in slots if e.row not in failed and e.row not in late], events
