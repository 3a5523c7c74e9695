"""What diffusers computes anew whenever it makes some of its schedulers, for up to half a second,
is computed once: quantiles of the beta distribution, and the times of the thousand noise levels
that Heun's begins with."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from scipy.stats import beta

_ppf = cache(beta.ppf)
_sigma_to_t = HeunDiscreteScheduler._sigma_to_t
_times: dict[bytes, dict[float, Any]] = {}
"""Levels of a model -> noise level -> its time."""


def _known_time(scheduler: HeunDiscreteScheduler, sigma: np.floating, levels: Any) -> Any:
    known = _times.setdefault(levels.tobytes(), {})
    level = float(sigma)
    if level not in known:
        known[level] = _sigma_to_t(scheduler, sigma, levels)
    return known[level]


@pytest.fixture(scope="session", autouse=True)
def quick_schedulers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beta, "ppf", _ppf)
        patch.setattr(HeunDiscreteScheduler, "_sigma_to_t", _known_time)
        yield
