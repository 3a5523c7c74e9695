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
- A host that becomes slower or faster does so for all sizes: where several steps in a row differ by
  a factor from what was measured of their sizes just before, all other sizes are scaled by it.
- Only what the last steps took, at their quickest, gives a row up (`least`).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import log2
from statistics import median, median_low
from typing import Final

import msgspec

from services.denoiser.work import StepWork

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
SURPRISE: Final = 1.5
"""A step that takes so many times more or less than its size did surprises;"""
SHIFT: Final = 3
"""so many of them in a row are no noise: the host has become slower or faster."""
LAST_STEPS: Final = 32
"""By which it is judged what the host can do now,"""
LEAST_STEPS: Final = 4
"""and how many of them have to be there,"""
LOW: Final = 0.25
"""and which quantile of them counts."""

EVERY: Final = 16
"""Steps between two fits, which take a third of a millisecond each; a cell that has few
measurements yet is worth one at each, unless there are many."""
FEW: Final = FIRST + 3

PRIOR: Final = (0.02, 2e-5, 1e-9, 1e-10, 2e-3)
"""Seconds, before anything was measured: a small network on two CPU cores, a copy in memory, and
the interpreter between the kernels of a masked image."""
OPTIONAL: Final = (3, 4)
"""Terms of which most models have nothing to tell."""
_PULL: Final = 1e-4
"""Weight of the prior against one measured cell: it only decides what measurements leave open."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What was measured at one size."""

    recent: tuple[float, ...]
    """Seconds of its last runs, oldest first; until there is a measurement, of its quickest one."""
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

    size: str
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
    surprises: tuple[Sample, ...] = ()
    """The last steps, as far as each of them took much more, or each much less, than before."""
    ratios: tuple[float, ...] = ()
    """Seconds of the last steps, first runs left out, over what was predicted."""

    @property
    def known(self) -> bool:
        """Whether any size of step was measured, or many were run."""
        return len(self.cells) > MANY or any(cell.measured for cell in self.cells.values())

    def predict(self, work: StepWork) -> float:
        """Seconds that a step takes; 0 for an empty one. Grows with all that `work` is."""
        if work.tokens <= 0:
            return 0.0
        fixed, *each = self.coefficients
        return fixed + sum(a * b for a, b in zip(each, _terms(work), strict=True))

    def least(self, work: StepWork) -> float:
        """Seconds that such a step took when the last steps were quick; 0 while there are too few
        since the last rest to tell."""
        if len(self.ratios) < LEAST_STEPS:
            return 0.0
        low = sorted(self.ratios)[int(LOW * len(self.ratios))]
        return min(1.0, low) * self.predict(work)

    def untried(self, work: StepWork) -> bool:
        """Whether measuring a step of so much work would tell more than is known: few sizes were
        run yet, and that one was not measured."""
        cell = self.cells.get(_size(work))
        return len(self.cells) <= MANY and (cell is None or not cell.measured)

    def rested(self) -> "CostModel":
        """The model after there was nothing to do: who knows what the host does meanwhile."""
        return msgspec.structs.replace(self, ratios=()) if self.ratios else self

    def observe(self, work: StepWork, seconds: float) -> "CostModel":
        """The model after a step of `work` took `seconds`."""
        sample = Sample(_size(work), max(seconds, 1e-6), _terms(work))
        cell, steps = self.cells.get(sample.size), self.steps + 1
        ratios = self.ratios
        if cell is not None and cell.count >= FIRST:
            ratios = (*ratios, sample.seconds / self.predict(work))[-LAST_STEPS:]
        now = msgspec.structs.replace(self, steps=steps, ratios=ratios, unfitted=self.unfitted + 1)
        if cell is None or len(cell.recent) < SHIFT or steps - cell.at > AGE:
            return now._learnt((sample,), self.surprises)
        change = self._change(sample)
        surprises = (*self.surprises, sample)
        if 1.0 / SURPRISE < change < SURPRISE:
            return now._learnt(surprises)
        if any((self._change(other) > 1.0) != (change > 1.0) for other in self.surprises):
            return now._learnt(surprises)
        if len(surprises) < SHIFT:
            return msgspec.structs.replace(now, surprises=surprises)
        factor = median(self._change(each) for each in surprises)
        cells = {size: _scaled(cell, factor) for size, cell in self.cells.items()}
        return msgspec.structs.replace(now, cells=cells, unfitted=EVERY)._learnt(surprises)

    def _change(self, sample: Sample) -> float:
        """Seconds of `sample` over what its size took before."""
        return sample.seconds / self.cells[sample.size].seconds

    def _learnt(self, samples: Sequence[Sample], surprises: Sequence[Sample] = ()) -> "CostModel":
        """With `samples` in their cells, `surprises` not yet, and a fit if it is time for one."""
        cells, few = dict(self.cells), False
        for sample in samples:
            old = cells.pop(sample.size, None) or Cell(
                (sample.seconds,), 0, sample.work, self.steps
            )
            cells[sample.size] = new = old.add(sample.seconds, self.steps, sample.work)
            few |= len(new.recent) <= SHIFT and len(cells) <= MANY
        while len(cells) > MAX_CELLS:
            del cells[next(iter(cells))]
        kept = tuple(sample for sample in surprises if sample.size in cells)
        now = msgspec.structs.replace(self, cells=cells, surprises=kept)
        if not few and self.unfitted < EVERY:
            return now
        return msgspec.structs.replace(now, coefficients=_fit(cells, self.steps), unfitted=0)


def _scaled(cell: Cell, factor: float) -> Cell:
    recent = tuple(seconds * factor for seconds in cell.recent)
    return msgspec.structs.replace(cell, recent=recent)


def _size(work: StepWork) -> str:
    return ",".join(str(_grade(n)) for n in _terms(work))


def _terms(work: StepWork) -> tuple[int, int, int, int]:
    """What the coefficients but the first are of."""
    return work.tokens, work.pairs, work.loaded, work.masked


def _grade(n: int) -> int:
    return round(SIZES * log2(n)) if n > 0 else -1


def _fit(cells: Mapping[str, Cell], steps: int) -> tuple[float, float, float, float, float]:
    """Least squares of the relative errors after `steps` steps, no coefficient negative, pulled
    towards the prior scaled to the measured size. With so few unknowns every set of positive ones
    can be tried; what never occurred is none."""
    rows, weights, scale = [], [], 0.0
    young = {k for k, c in cells.items() if c.measured and steps - c.at <= AGE} or set(cells)
    for key, cell in cells.items():
        terms = [p * f for p, f in zip(PRIOR, (1.0, *cell.work), strict=True)]
        rows.append([term / cell.seconds for term in terms])
        weights.append(1.0 if key in young else OLD_WEIGHT)
        scale += weights[-1] * cell.seconds / sum(terms)
    scale /= sum(weights)
    unknowns = [i for i in range(len(PRIOR)) if any(row[i] for row in rows)]
    best, best_error = [scale] * len(PRIOR), float("inf")
    for size in range(len(unknowns), 0, -1):
        for chosen in combinations(unknowns, size):
            found = _solve(rows, weights, chosen, scale)
            error = _error(rows, weights, found, scale)
            if min(found) >= 0.0 and error < best_error:
                best, best_error = found, error
    for term in OPTIONAL:
        if term not in unknowns:
            best[term] = scale
    fixed, per_token, per_pair, per_byte, per_masked = (
        p * b for p, b in zip(PRIOR, best, strict=True)
    )
    return fixed, per_token, per_pair, per_byte, per_masked


def _error(
    rows: Iterable[list[float]], weights: Iterable[float], found: list[float], scale: float
) -> float:
    misses = (sum(a * b for a, b in zip(row, found, strict=True)) - 1.0 for row in rows)
    error = sum(weight * miss**2 for weight, miss in zip(weights, misses, strict=True))
    return error + _PULL * sum((b / scale - 1.0) ** 2 for b in found)


def _solve(
    rows: list[list[float]], weights: list[float], chosen: tuple[int, ...], scale: float
) -> list[float]:
    """The minimum of `_error` over the chosen unknowns, the others being 0 (Gauss-Jordan)."""
    n, weighed = len(chosen), list(zip(rows, weights, strict=True))
    matrix = [[sum(w * row[i] * row[j] for row, w in weighed) for j in chosen] for i in chosen]
    for k, i in enumerate(chosen):
        matrix[k][k] += _PULL / scale**2
        matrix[k].append(sum(w * row[i] for row, w in weighed) + _PULL / scale)
    for k in range(n):
        for other in range(n):
            if other != k:
                ratio = matrix[other][k] / matrix[k][k]
                matrix[other] = [
                    a - ratio * b for a, b in zip(matrix[other], matrix[k], strict=True)
                ]
    found = [0.0] * len(PRIOR)
    for k, i in enumerate(chosen):
        found[i] = matrix[k][n] / matrix[k][k]
    return found
