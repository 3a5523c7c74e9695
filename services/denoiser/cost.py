"""How long a step takes, learnt from the steps that were taken. Pure, no torch.

`seconds = fixed + per_token·T + per_pair·P + per_byte·B + per_masked·M`: what every step pays
(weights read, kernels started); what grows with the positions T that are computed (convolutions,
projections); attention, with P pairs of positions; what is seen of loading B bytes of caches; and
what it takes beside the arithmetic that M images are masked. F forwards (a guided row needs two) of
N latent positions each, in full, have T = F·N and P = F·N². InstGenIE (arXiv 2505.20600) found
linear models, of computation and of loading, to explain 99.8% of a step's time.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import log2
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
MEMORY: Final = 32
"""A cell's mean follows its last steps, about this many."""

EVERY: Final = 16
"""Steps between two fits, which take a third of a millisecond each; a cell that has few
measurements yet is worth one at each, unless there are many."""
FEW: Final = 3

PRIOR: Final = (0.02, 2e-5, 1e-9, 1e-10, 2e-3)
"""Seconds, before anything was measured: a small network on two CPU cores, a copy in memory, and
the interpreter between the kernels of a masked image."""
OPTIONAL: Final = (3, 4)
"""Terms of which most models have nothing to tell."""
_PULL: Final = 1e-4
"""Weight of the prior against one measured cell: it only decides what measurements leave open."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What was measured at one size: means."""

    seconds: float
    count: int
    work: tuple[float, float, float, float]
    """Tokens, pairs, bytes loaded, and masked images."""


class CostModel(msgspec.Struct, frozen=True, kw_only=True):
    """Replaced, not changed, by `observe`. Goes over the wire as it is."""

    coefficients: tuple[float, float, float, float, float] = PRIOR
    cells: dict[str, Cell] = {}
    """By size, least recently measured first."""
    unfitted: int = 0
    """Steps that the coefficients do not know of yet."""

    @property
    def known(self) -> bool:
        """Whether any size of step was measured more than a few times."""
        return any(cell.count > FEW for cell in self.cells.values())

    def predict(self, work: StepWork) -> float:
        """Seconds that a step takes; 0 for an empty one. Grows with all that `work` is."""
        if work.tokens <= 0:
            return 0.0
        fixed, *each = self.coefficients
        return fixed + sum(a * b for a, b in zip(each, _terms(work), strict=True))

    def untried(self, work: StepWork) -> bool:
        """Whether measuring a step of so much work would tell more than is known: few sizes were
        measured yet, and that one not more than a few times."""
        cell = self.cells.get(_size(work))
        return len(self.cells) <= MANY and (cell is None or cell.count <= FEW)

    def observe(self, work: StepWork, seconds: float) -> "CostModel":
        """The model after a step of `work` took `seconds`."""
        cells = dict(self.cells)
        key = _size(work)
        old = cells.pop(key, None) or Cell(0.0, 0, (0.0, 0.0, 0.0, 0.0))
        count = min(old.count + 1, MEMORY)
        seconds = max(seconds, 1e-6)
        tokens, pairs, loaded, masked = (
            mean + (new - mean) / count for mean, new in zip(old.work, _terms(work), strict=True)
        )
        mean = old.seconds + (seconds - old.seconds) / count
        cells[key] = Cell(mean, count, (tokens, pairs, loaded, masked))
        if len(cells) > MAX_CELLS:
            del cells[next(iter(cells))]
        known = count > FEW or len(cells) > MANY
        if known and self.unfitted + 1 < EVERY:
            return msgspec.structs.replace(self, cells=cells, unfitted=self.unfitted + 1)
        return CostModel(coefficients=_fit(cells), cells=cells)


def _size(work: StepWork) -> str:
    return ",".join(str(_grade(n)) for n in _terms(work))


def _terms(work: StepWork) -> tuple[int, int, int, int]:
    """What the coefficients but the first are of."""
    return work.tokens, work.pairs, work.loaded, work.masked


def _grade(n: int) -> int:
    return round(SIZES * log2(n)) if n > 0 else -1


def _fit(cells: Mapping[str, Cell]) -> tuple[float, float, float, float, float]:
    """Least squares of the relative errors, no coefficient negative, pulled towards the prior
    scaled to the measured size. With so few unknowns every set of positive ones can be tried; what
    never occurred is none."""
    rows, scale = [], 0.0
    for cell in cells.values():
        terms = [p * f for p, f in zip(PRIOR, (1.0, *cell.work), strict=True)]
        rows.append([term / cell.seconds for term in terms])
        scale += cell.seconds / sum(terms) / len(cells)
    unknowns = [i for i in range(len(PRIOR)) if any(row[i] for row in rows)]
    best, best_error = [scale] * len(PRIOR), float("inf")
    for size in range(len(unknowns), 0, -1):
        for chosen in combinations(unknowns, size):
            found = _solve(rows, chosen, scale)
            error = _error(rows, found, scale)
            if min(found) >= 0.0 and error < best_error:
                best, best_error = found, error
    for term in OPTIONAL:
        if term not in unknowns:
            best[term] = scale
    fixed, per_token, per_pair, per_byte, per_masked = (
        p * b for p, b in zip(PRIOR, best, strict=True)
    )
    return fixed, per_token, per_pair, per_byte, per_masked


def _error(rows: Iterable[list[float]], found: list[float], scale: float) -> float:
    misses = (sum(a * b for a, b in zip(row, found, strict=True)) - 1.0 for row in rows)
    return sum(miss**2 for miss in misses) + _PULL * sum((b / scale - 1.0) ** 2 for b in found)


def _solve(rows: list[list[float]], chosen: tuple[int, ...], scale: float) -> list[float]:
    """The minimum of `_error` over the chosen unknowns, the others being 0 (Gauss-Jordan)."""
    n = len(chosen)
    matrix = [[sum(row[i] * row[j] for row in rows) for j in chosen] for i in chosen]
    for k, i in enumerate(chosen):
        matrix[k][k] += _PULL / scale**2
        matrix[k].append(sum(row[i] for row in rows) + _PULL / scale)
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
