"""Structural similarity of two pictures (Wang, Bovik, Sheikh and Simoncelli 2004). Pure."""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SIDE: Final = 11
"""Pixels of the Gaussian window,"""
SIGMA: Final = 1.5
"""and its deviation."""
REACH: Final = SIDE // 2
"""Pixels that a window has on each side of its middle one."""
C1: Final = (0.01 * 255) ** 2
C2: Final = (0.03 * 255) ** 2
"""(K1 L)² and (K2 L)² of the paper's section 3.2."""

Field = NDArray[np.float64]


def ssim(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """The mean SSIM (eq. 13) of pictures (height, width, 3), over all windows that lie inside and
    the three channels; 1 for equal ones. Raises `ValueError` if their shapes differ, or a window
    does not fit in."""
    return float(_windows(x, y).mean())


def ssim_within(x: NDArray[np.uint8], y: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """The same over windows whose middle is `where` (height, width) says. Raises `ValueError` as
    well if there is none."""
    chosen = _windows(x, y)[where[REACH:-REACH, REACH:-REACH]]
    if not chosen.size:
        raise ValueError(f"no window lies inside whose middle is one of {where.sum()} pixels")
    return float(chosen.mean())


def _windows(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> Field:
    """Of each window that lies inside, (height - 2 REACH, width - 2 REACH, 3)."""
    if x.shape != y.shape or min(x.shape[:2]) < SIDE:
        raise ValueError(
            f"pictures of {x.shape} and {y.shape} have no SSIM: equal ones from {SIDE}"
        )
    a, b = x.astype(np.float64), y.astype(np.float64)
    mu_a, mu_b = _weighted(a), _weighted(b)
    var_a, var_b = _weighted(a * a) - mu_a**2, _weighted(b * b) - mu_b**2
    cov = _weighted(a * b) - mu_a * mu_b
    alike: Field = (2 * mu_a * mu_b + C1) * (2 * cov + C2)
    alike /= (mu_a**2 + mu_b**2 + C1) * (var_a + var_b + C2)
    return alike


def _weighted(image: Field) -> Field:
    """The mean of each window, weighted by a Gaussian."""
    offsets = np.arange(SIDE) - SIDE // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    rows: Field = sliding_window_view(image, SIDE, axis=0) @ weights
    columns: Field = sliding_window_view(rows, SIDE, axis=1) @ weights
    return columns
