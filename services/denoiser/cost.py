"""How long a step takes, learnt from the steps that were taken. Pure, no torch.

`seconds = fixed + per_token·F·N + per_pair·F·N²`, for F forwards (a guided row needs two) of N
latent positions each: what every step pays (weights read, kernels started), what grows with the
picture (convolutions, projections), and attention. InstGenIE (arXiv 2505.20600) found linear models
to explain 99.8% of a step's time.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Final

import msgspec

MAX_CELLS: Final = 64
"""Different (forwards, tokens) that are remembered; the one not seen for longest makes room."""
MEMORY: Final = 32
"""A cell's mean follows its last steps, about this many."""

EVERY: Final = 16
"""Steps between two fits, which take a third of a millisecond each; a cell that has few
measurements yet is worth one at each."""
FEW: Final = 3

PRIOR: Final = (0.02, 2e-5, 1e-9)
"""Seconds, before anything was measured: a small network on two CPU cores."""
_PULL: Final = 1e-4
"""Weight of the prior against one measured cell: it only decides what measurements leave open."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What was measured at one (forwards, tokens)."""

    seconds: float
    count: int


class CostModel(msgspec.Struct, frozen=True, kw_only=True):
    """Replaced, not changed, by `observe`. Goes over the wire as it is."""

    coefficients: tuple[float, float, float] = PRIOR
    cells: dict[str, Cell] = {}
    """By `"forwards,tokens"`, least recently measured first."""
    unfitted: int = 0
    """Steps that the coefficients do not know of yet."""

    @property
    def known(self) -> bool:
        """Whether any size of step was measured more than a few times."""
        return any(cell.count > FEW for cell in self.cells.values())

    def predict(self, forwards: int, tokens: int) -> float:
        """Seconds that a step takes; 0 for an empty one. Grows with both arguments."""
        if forwards <= 0:
            return 0.0
        return sum(
            c * f for c, f in zip(self.coefficients, _features(forwards, tokens), strict=True)
        )

    def observe(self, forwards: int, tokens: int, seconds: float) -> "CostModel":
        """The model after a step of `forwards` at `tokens` took `seconds`."""
        cells = dict(self.cells)
        key = f"{forwards},{tokens}"
        old = cells.pop(key, Cell(0.0, 0))
        count = min(old.count + 1, MEMORY)
        seconds = max(seconds, 1e-6)
        cells[key] = Cell(old.seconds + (seconds - old.seconds) / count, count)
        if len(cells) > MAX_CELLS:
            del cells[next(iter(cells))]
        if count > FEW and self.unfitted + 1 < EVERY:
            return msgspec.structs.replace(self, cells=cells, unfitted=self.unfitted + 1)
        return CostModel(coefficients=_fit(cells), cells=cells)


def _features(forwards: int, tokens: int) -> tuple[float, float, float]:
    return 1.0, float(forwards * tokens), float(forwards * tokens * tokens)


def _fit(cells: Mapping[str, Cell]) -> tuple[float, float, float]:
    """Least squares of the relative errors, no coefficient negative, pulled towards the prior
    scaled to the measured size. With three unknowns every set of positive ones can be tried."""
    rows, scale = [], 0.0
    for key, cell in cells.items():
        forwards, tokens = map(int, key.split(","))
        terms = [p * f for p, f in zip(PRIOR, _features(forwards, tokens), strict=True)]
        rows.append([term / cell.seconds for term in terms])
        scale += cell.seconds / sum(terms) / len(cells)
    best, best_error = [scale] * 3, float("inf")
    for size in (3, 2, 1):
        for chosen in combinations(range(3), size):
            found = _solve(rows, chosen, scale)
            error = _error(rows, found, scale)
            if min(found) >= 0.0 and error < best_error:
                best, best_error = found, error
    fixed, per_token, per_pair = (p * b for p, b in zip(PRIOR, best, strict=True))
    return fixed, per_token, per_pair


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
    found = [0.0] * 3
    for k, i in enumerate(chosen):
        found[i] = matrix[k][n] / matrix[k][k]
    return found
