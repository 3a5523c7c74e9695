"""Structural similarity of two pictures (Wang et al. 2004), by scikit-image."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

SIDE: Final = 11
"""Pixels of the Gaussian window, whose deviation is 1.5."""
REACH: Final = SIDE // 2
"""Pixels that a window has on each side of its middle one."""


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


def _windows(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of each window that lies inside, (height - 2 REACH, width - 2 REACH, 3)."""
    if x.shape != y.shape or min(x.shape[:2]) < SIDE:
        raise ValueError(
            f"pictures of {x.shape} and {y.shape} have no SSIM: equal ones from {SIDE}"
        )
    _, found = structural_similarity(
        x.astype(np.float64),
        y.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,  # the paper's windows are whole populations
        data_range=255,
        channel_axis=2,
        full=True,
    )
    inside: NDArray[np.float64] = found[REACH:-REACH, REACH:-REACH]
    return inside
