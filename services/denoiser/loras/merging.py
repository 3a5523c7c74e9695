"""Whether the adapters that all rows agree on are merged into the weights, by measured cost.

A bank (`shared/models/lowrank/bank.py`) serves rows that differ, at a price in every step. While
all rows have the same adapters, these can be in the weights instead: that costs nothing in a step,
but a pass over the weights there and one back.
"""

import logging
import time
from collections.abc import Collection
from typing import Final

from services.denoiser.loras.extension import RowLoras
from services.denoiser.loras.products import Preparation
from services.denoiser.rows.row import Row
from shared.models.contracts.network import Network
from shared.models.lowrank.bank import Products, Use
from shared.policy.cost_model import CostModel
from shared.policy.step_work import StepWork, total

log = logging.getLogger(__name__)

BANK_FACTOR: Final = 1.3
"""A step with a bank against one without, before it was measured."""
PASS_STEPS: Final = 1.0
"""Plain steps that one change of the weights takes, before it was measured."""
_NEWEST: Final = 0.3
"""Weight of the last measured change in their mean."""
_DOUBTED: Final = 50.0
"""Times that two changes take: after steps of so many seconds for which the weights were not
changed, what a change was measured to take is no reason any more."""


def worth_merging(steps: int, plain: float, banked: float, change: float) -> bool:
    """Whether it pays for `steps` steps, of `banked` seconds with a bank and `plain` without, to
    change the weights and change them back, for `change` seconds each. Pure."""
    return steps * (banked - plain) > 2.0 * change


class Merging:
    """The weights of one network, and what the ways to use adapters have cost. For the thread that
    computes."""

    def __init__(self, network: Network, preparation: Preparation | None = None) -> None:
        """`preparation`: of what is merged; None: it is computed when it is added."""
        self._network = network
        self._preparation = preparation or Preparation(network)
        self.merged: tuple[Use, ...] = ()
        """In the weights now."""
        self.changes = 0
        self._failed = False
        self._change_seconds: float | None = None
        self._declined = 0.0
        """Seconds of the steps since the last change for which there might have been one."""
        self._plain, self._banked = CostModel(), CostModel()

    def __repr__(self) -> str:
        return f"<Merging {[adapter.name for adapter, _ in self.merged]}, {self.changes} changes>"

    @property
    def preparing(self) -> bool:
        """What all rows agree on is about to be merged."""
        return self._preparation.under_way

    def settle(self, rows: Collection[Row]) -> None:
        """Before a step, `rows` being all that take turns: put into the weights what pays, or bring
        them back bit for bit."""
        wanted = agreed(rows)
        if wanted == self.merged:
            self._preparation.drop()
        elif wanted and not self._failed and self._pays(rows):
            if self._preparation.ready(wanted):
                self._merge(wanted)
            elif self.merged:
                self._change(())
        else:
            self._preparation.drop()
            if self.merged:
                self._change(())

    def observe(self, work: StepWork, seconds: float, banked: bool) -> None:
        """A step of `work` took `seconds`."""
        if banked:
            self._declined += seconds
            if self._declined > 2.0 * _DOUBTED * (self._change_seconds or 0.0):
                self._change_seconds = None
            self._banked = self._banked.observe(work, seconds)
        else:
            self._plain = self._plain.observe(work, seconds)

    def _pays(self, rows: Collection[Row]) -> bool:
        steps = max(row.table.steps - row.step for row in rows)
        work = total(row.work for row in rows)
        plain = self._plain.predict(work)
        banked = self._banked.predict(work) if self._banked.known else 0.0
        change = self._change_seconds
        return worth_merging(
            steps,
            plain,
            banked or BANK_FACTOR * plain,
            PASS_STEPS * plain if change is None else change,
        )

    def _merge(self, wanted: tuple[Use, ...]) -> None:
        try:
            self._change(wanted, self._preparation.take())
        except (RuntimeError, MemoryError) as error:  # no memory for the copies, above all
            self._failed = True
            log.warning("adapters are not merged any more, since that failed: %s", error)

    def _change(self, wanted: tuple[Use, ...], prepared: Products | None = None) -> None:
        started = time.perf_counter()
        self.merged = ()  # if it fails, nothing is
        self._network.merge(wanted, prepared)
        seconds = time.perf_counter() - started
        before = self._change_seconds
        self._change_seconds = seconds if before is None else before + _NEWEST * (seconds - before)
        self.merged = wanted
        self._declined = 0.0
        self.changes += 1


def agreed(rows: Collection[Row]) -> tuple[Use, ...] | None:
    """The adapters that all `rows` have, and go on having; None if they differ or may yet."""
    each = [row.extension(RowLoras) for row in rows]
    if any(found is not None and not found.complete for found in each):
        return None
    sets = {() if found is None else found.arrived for found in each}
    return sets.pop() if len(sets) == 1 else None
