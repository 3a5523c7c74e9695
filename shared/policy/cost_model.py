"""How long a step takes, learnt from the steps that were taken. Pure, no torch.

`seconds = fixed + per_token·T + per_pair·P + per_byte·B + per_masked·M`: what every step pays
(weights read, kernels started); what grows with the positions T that are computed (convolutions,
projections); attention, with P pairs of positions; what is seen of loading B bytes of caches; and
what it takes beside the arithmetic that M images are masked. F forwards (a guided row needs two) of
N latent positions each, in full, have T = F·N and P = F·N². InstGenIE (arXiv 2505.20600) found
linear models, of computation and of loading, to explain 99.8% of a step's time.

Nothing that is learnt may lock itself in, for what is believed decides what is measured:

- The first runs of a size, in which kernels are chosen and graphs prepared, are no measurements.
- A size is worth the median of its last runs, and starts anew if it was not measured for long.
- A host that becomes slower or faster does so for all sizes. So what is remembered of them is what
  they take at one pace, and the `pace` is that of the last few steps, whatever their sizes.
- Only what the last steps took, at their quickest, gives a row up (`least`); what is promised
  counts on what the slower of them took, those before a rest too (`busy_pace`).
"""

from collections.abc import Mapping, Sequence
from math import inf, log2, sqrt
from statistics import median, median_low, quantiles
from typing import Final

import msgspec
import numpy as np
from scipy.optimize import nnls

from shared.policy.step_work import StepWork

MAX_CELLS: Final = 64
"""Sizes of steps that are remembered; the one not seen for longest makes room."""
SIZES: Final = 32
"""Sizes that are told apart between one and twice as much: no two full batches of up to 45 images
are taken for one, and masks of nearly the same size are."""
MANY: Final = 16
"""Sizes after which a new one is not worth a fit of its own."""
MEMORY: Final = 9
"""Runs of a size of which the median is taken."""
FIRST: Final = 4
"""Runs of a size that are no measurements."""
AGE: Final = 150
"""Steps after which a size that was not measured meanwhile starts anew; until then it counts for
little beside what was."""
OLD_WEIGHT: Final = 0.01
"""Weight in a fit of what is old, or was never more than a first run."""
PACE_STEPS: Final = 8
"""Steps of whose paces the middle is taken: half as many of another pace are no noise."""
LAST_STEPS: Final = 32
"""By which it is judged what the host can do now,"""
LEAST_STEPS: Final = 4
"""and how many of them have to be there,"""
LOW: Final = 0.25
"""and which quantile of them counts."""
LATELY: Final = 64
"""Steps by which promises are made, those before a rest too,"""
HIGH: Final = 0.8
"""and which quantile of them counts."""
QUARTILES: Final = 1.35
"""Standard deviations between the quartiles of normal noise."""

EVERY: Final = 16
"""Steps between two fits; a cell that has few measurements yet is worth one at each, unless there
are many."""
FEW_RUNS: Final = 3
"""Measurements of a size that are few."""
FEW: Final = FIRST + FEW_RUNS

PRIOR: Final = (0.02, 2e-5, 1e-9, 1e-10, 2e-3)
"""Seconds, before anything was measured: a small network on two CPU cores, a copy in memory, and
the interpreter between the kernels of a masked image."""
_PULL: Final = 1e-4
"""Weight of the prior against one measured cell: it only decides what measurements leave open."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What was measured at one size."""

    recent: tuple[float, ...]
    """Seconds of its last runs over the pace of their time, oldest first; until there is a
    measurement, of its quickest one."""
    count: int
    """Runs, up to `FEW`."""
    work: tuple[float, float, float, float]
    """Tokens, pairs, bytes loaded, and masked images."""
    at: int = 0
    """The step that measured it last."""

    @property
    def seconds(self) -> float:
        return median_low(self.recent)

    @property
    def measured(self) -> bool:
        """By more than first runs."""
        return self.count > FIRST

    def add(self, seconds: float, at: int, work: tuple[int, int, int, int]) -> "Cell":
        """With one run more, at step `at`."""
        if self.count < FIRST:
            recent: tuple[float, ...] = (min(seconds, *self.recent),)
        elif self.count == FIRST or at - self.at > AGE:
            recent = (seconds,)
        else:
            recent = (*self.recent, seconds)[-MEMORY:]
        return Cell(recent, min(self.count + 1, FEW), work, at)


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A step that was taken."""

    seconds: float
    work: tuple[int, int, int, int]


class CostModel(msgspec.Struct, frozen=True, kw_only=True):
    """Replaced, not changed, by `observe`. Goes over the wire as it is."""

    coefficients: tuple[float, float, float, float, float] = PRIOR
    cells: dict[str, Cell] = {}
    """By size, least recently measured first."""
    steps: int = 0
    """That were observed."""
    unfitted: int = 0
    """Steps that the coefficients do not know of yet."""
    last: tuple[Sample, ...] = ()
    """The last steps since there was nothing to do, first runs left out."""
    lately: tuple[Sample, ...] = ()
    """The last steps, whatever was between them, first runs left out."""
    paces: tuple[float, ...] = ()
    """Their seconds over what such a step takes by the coefficients."""
    pace: float = 1.0
    """Of the host now: it takes so many times what it does by the coefficients."""
    busy_pace: float = 1.0
    """The pace to count on for what is promised: of the slower of the last steps, before a rest
    too; of the slower ones since then, if that is more; and no less than the present one. A step
    that is taken while everybody else on the host is idle says little of what it takes when they
    are at work."""
    doubted: float = 1.0
    """How far off predictions were before the last rest: `doubt`, of which nothing is known at
    first."""

    @property
    def known(self) -> bool:
        """Whether any size of step was measured, or many were run."""
        return len(self.cells) > MANY or any(cell.measured for cell in self.cells.values())

    def predict(self, work: StepWork) -> float:
        """Seconds that a step takes; 0 for an empty one. Grows with all that `work` is."""
        return self.pace * self._at_usual_pace(_terms(work)) if work.tokens > 0 else 0.0

    def least(self, work: StepWork) -> float:
        """Seconds that such a step took when the last steps were quick; 0 while there are too few
        since the last rest to tell."""
        if len(self.paces) < LEAST_STEPS:
            return 0.0
        low = sorted(self.paces)[int(LOW * len(self.paces))]
        return min(1.0, low / self.pace) * self.predict(work)

    @property
    def slowness(self) -> float:
        """Times as long as predicted that a step takes at the `busy_pace`."""
        return self.busy_pace / self.pace

    @property
    def doubt(self) -> float:
        """Relative error of what is predicted now, by the last steps: how far their middle is from
        what is predicted, and how far they spread (the standard deviation, for normal noise)."""
        if len(self.paces) < LEAST_STEPS:
            return self.doubted
        low, middle, high = (each / self.pace for each in quantiles(self.paces, n=4))
        return abs(middle - 1.0) + (high - low) / QUARTILES

    @property
    def spread(self) -> float:
        """How much slower than the fastest the slowest of the last steps was, those before a rest
        too, as a share; infinity if there were too few to tell."""
        paces = self._paces(self.lately)
        return max(paces) / min(paces) - 1.0 if len(paces) >= PACE_STEPS else inf

    @property
    def longest(self) -> float:
        """Seconds of the longest of the last few steps; infinity if there were none since there was
        nothing to do."""
        return max((each.seconds for each in self.last[-PACE_STEPS:]), default=inf)

    def untried(self, work: StepWork) -> bool:
        """Whether measuring a step of so much work would tell more than is known: few sizes were
        run yet, and that one was not measured."""
        cell = self.cells.get(_size(work))
        return len(self.cells) <= MANY and (cell is None or not cell.measured)

    def rested(self) -> "CostModel":
        """The model after there was nothing to do: who knows what the host does meanwhile."""
        if not self.last:
            return self
        return msgspec.structs.replace(self, last=(), paces=(), doubted=self.doubt)

    def observe(self, work: StepWork, seconds: float) -> "CostModel":
        """The model after a step of `work` took `seconds`."""
        size, sample = _size(work), Sample(max(seconds, 1e-6), _terms(work))
        steps, cells, now = self.steps + 1, dict(self.cells), self
        old = cells.pop(size, None)
        if old is not None and old.count >= FIRST:
            now = self._paced((*self.last, sample)[-LAST_STEPS:], (*self.lately, sample)[-LATELY:])
        usual = sample.seconds / now.pace
        old = old or Cell((usual,), 0, sample.work, steps)
        cells[size] = new = old.add(usual, steps, sample.work)
        if len(cells) > MAX_CELLS:
            del cells[next(iter(cells))]
        few = len(new.recent) <= FEW_RUNS and len(cells) <= MANY
        unfitted = self.unfitted + 1
        now = msgspec.structs.replace(now, cells=cells, steps=steps, unfitted=unfitted)
        if not few and unfitted < EVERY:
            return now
        fitted = msgspec.structs.replace(now, coefficients=_fit(cells, steps), unfitted=0)
        return fitted._paced(fitted.last, fitted.lately)

    def _at_usual_pace(self, terms: tuple[int, int, int, int]) -> float:
        fixed, token, pair, byte, mask = self.coefficients
        tokens, pairs, loaded, masked = terms
        return fixed + (token * tokens + pair * pairs + byte * loaded + mask * masked)

    def _paced(self, last: tuple[Sample, ...], lately: tuple[Sample, ...]) -> "CostModel":
        """With these as the last steps. The pace may be one from before a rest: else it would never
        change where one step at a time is taken."""
        paces, before = self._paces(last), self._paces(lately)
        latest = before[-PACE_STEPS:]
        pace = median(latest) if len(latest) >= LEAST_STEPS else self.pace
        return msgspec.structs.replace(
            self,
            last=last,
            lately=lately,
            paces=paces,
            pace=pace,
            busy_pace=max(pace, _slower(before), _slower(paces)),
        )

    def _paces(self, steps: Sequence[Sample]) -> tuple[float, ...]:
        return tuple(each.seconds / self._at_usual_pace(each.work) for each in steps)


def _slower(paces: Sequence[float]) -> float:
    """0 if there are too few to tell."""
    return sorted(paces)[int(HIGH * len(paces))] if len(paces) >= LEAST_STEPS else 0.0


def _size(work: StepWork) -> str:
    return ",".join(str(_grade(n)) for n in _terms(work))


def _terms(work: StepWork) -> tuple[int, int, int, int]:
    """What the coefficients but the first are of."""
    return work.tokens, work.pairs, work.loaded, work.masked


def _grade(n: int) -> int:
    return round(SIZES * log2(n)) if n > 0 else -1


def _fit(cells: Mapping[str, Cell], steps: int) -> tuple[float, float, float, float, float]:
    """Least squares of the relative errors after `steps` steps, no coefficient negative (Lawson and
    Hanson 1974), pulled towards the prior scaled to the measured size."""
    young = {k for k, c in cells.items() if c.measured and steps - c.at <= AGE} or set(cells)
    weights = np.array([1.0 if key in young else OLD_WEIGHT for key in cells])
    seconds = np.array([cell.seconds for cell in cells.values()])
    terms = np.array([(1.0, *cell.work) for cell in cells.values()]) * PRIOR
    scale = float(np.average(seconds / terms.sum(axis=1), weights=weights))
    pull = sqrt(_PULL) * np.eye(len(PRIOR))
    each = np.sqrt(weights)[:, None]
    found, _ = nnls(
        np.vstack([each * terms * scale / seconds[:, None], pull]),
        np.concatenate([each[:, 0], pull.diagonal()]),
    )
    fixed, per_token, per_pair, per_byte, per_masked = (found * scale * PRIOR).tolist()
    return fixed, per_token, per_pair, per_byte, per_masked
