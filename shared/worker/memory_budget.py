"""How much memory a process may use: over it, it takes no more work and loads no larger model."""

import logging
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from shared.bus.readiness import Refusal
from shared.errors import MemoryBudgetExceeded
from shared.host.heap import hand_back
from shared.models.files.directory import local_directory
from shared.models.files.weights import loaded_bytes, weight_bytes

LOOK_SECONDS: Final = 0.25
"""How long one look at the resident memory is believed."""
RESUME: Final = 0.95
"""Share of the budget below which work is taken again."""

log = logging.getLogger(__name__)


def resident_bytes() -> int:
    """Of this process, the files that it maps included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def component_bytes(source: str, *components: str, dtype: str = "") -> int:
    """Size of the weights of these components of the model in `source`: on disk, or once they are
    loaded as torch's `dtype`. Processes may share them then, but each needs all of them."""
    root = local_directory(source)
    size = partial(loaded_bytes, dtype=dtype) if dtype else weight_bytes
    return sum(size(root / component) for component in components)


class MemoryBudget:
    """`refuse_larger` before a model is loaded, `refuse_unreachable` once it is; `refusal()` before
    work is pulled.

    `budget` of 0: none. `refused` is called with the limit's name each time that work begins to be
    refused, and for each refused model."""

    def __init__(
        self,
        budget: int,
        refused: Callable[[str], None] = lambda limit: None,
        resident: Callable[[], int] = resident_bytes,
        clock: Callable[[], float] = time.monotonic,
        release: Callable[[], None] = hand_back,
    ) -> None:
        """`release` is called before work is refused: it may be that the memory is not needed."""
        self.budget = budget
        self._refused = refused
        self._resident = resident
        self._clock = clock
        self._release = release
        self._looked_at = float("-inf")
        self._used = 0
        self._over = False

    def __repr__(self) -> str:
        state = ", over it" if self._over else ""
        return f"<MemoryBudget {self._used} of {self.budget} bytes{state}>"

    def refusal(self) -> Refusal | None:
        """Why no more work may be taken. Cheap enough to be asked before every pull."""
        if not self.budget:
            return None
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at, self._used = now, self._resident()
            if self._used > self._bound:
                self._release()
                self._used = self._resident()
            self._decide()
        if not self._over:
            return None
        resume = int(RESUME * self.budget)
        return Refusal(
            f"{self._used} bytes are resident, over DARKROOM_MEMORY_BUDGET={self.budget}; "
            f"work is taken again below {resume}",
            lasting=True,
        )

    def refuse_larger(self, what: str, needed: int) -> None:
        """Raises `MemoryBudgetExceeded` if `needed` bytes more do not fit."""
        if not self.budget:
            return
        self._used = self._resident()
        if self._used + needed > self.budget:
            self._refused(MemoryBudgetExceeded.code)
            raise MemoryBudgetExceeded(what, self._used + needed, self.budget)

    def refuse_unreachable(self, what: str) -> None:
        """Raises `MemoryBudgetExceeded` if what is resident before any work is so much already that
        `what` would stop for good, once it was over the budget."""
        if not self.budget:
            return
        self._release()  # what was computed to try the models needs no memory any more
        needed = math.ceil(self._resident() / RESUME)
        if needed > self.budget:
            self._refused(MemoryBudgetExceeded.code)
            raise MemoryBudgetExceeded(what, needed, self.budget)

    @property
    def _bound(self) -> float:
        return self.budget * (RESUME if self._over else 1.0)

    def _decide(self) -> None:
        was = self._over
        self._over = self._used > self._bound
        if self._over and not was:
            self._refused(MemoryBudgetExceeded.code)
            log.warning(
                "memory_budget: %d bytes are resident, over the budget of %d; no more work is "
                "taken until it is below %.0f%% (DARKROOM_MEMORY_BUDGET)",
                self._used,
                self.budget,
                100 * RESUME,
            )
        elif was and not self._over:
            log.info("memory_budget: %d bytes are resident; work is taken again", self._used)
